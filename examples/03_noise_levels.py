"""
At which noise levels are two classes told apart?
=================================================

The denoising error under each class, by how much noise was added. At little noise the denoiser needs nobody to tell it
what it sees, and the classes hardly differ; the more noise, the more depends on what it is told. That is why presets
for small models ask from 0.4 of the times on.
"""

import matplotlib.pyplot as plt
import torch

import diffcern

prior = diffcern.load_prior("embedded:digits")
sample = diffcern.load_dataset("embedded:digits")[8]
image = diffcern.shift(sample.image, "blur", 2, seed=0, id=sample.id)[None]

# %%
# The same times and the same noise for every class, so that differences vary far less than the errors themselves.

latents = prior.encode(image)
draws = diffcern.draw("stratified", 128, latents, [sample.id], seed=0, num_timesteps=prior.num_timesteps)
told = diffcern.Condition(classes=torch.eye(10))
errors = diffcern.score(prior, latents, told, draws, weighting="x0").errors[0]  # [classes, draws]

# %%
# Each class against the true one: above the line it explains the image worse. Means of 8 neighbouring draws, with two
# standard errors for the closest rival.

levels = prior.sigmas[draws.timesteps[0]].view(16, 8).mean(1)
gaps = (errors - errors[sample.target]).view(10, 16, 8)
rival = min((k for k in range(10) if k != sample.target), key=lambda k: gaps[k].mean())
figure, (picture, curves) = plt.subplots(1, 2, figsize=(8.5, 3.2), width_ratios=(1, 2.6))
picture.imshow(image[0].permute(1, 2, 0))
picture.set_title(f"a {sample.target}, blurred")
picture.axis("off")
for k in range(10):
    colour, width = ("#b2182b", 2) if k == rival else ("#2166ac", 2) if k == sample.target else ("#c3c7cf", 1)
    curves.plot(levels, gaps[k].mean(1), color=colour, linewidth=width)
mean, error = gaps[rival].mean(1), gaps[rival].std(1) / 8**0.5
curves.fill_between(levels, mean - 2 * error, mean + 2 * error, color="#b2182b", alpha=0.15)
curves.annotate(f"told {rival}", (levels[10], mean[10]), (0, 10), textcoords="offset points", color="#b2182b")
curves.set(xlabel="noise in what the prior sees (sigma)", ylabel="error above that of the truth")
plt.show()
