"""
Does this image look like what the models were trained on?
==========================================================

The prior's denoising error of an image, beside those of clean images that are kept with the prior. What is within 99 %
of these is familiar: Diffusion-TTA with ``familiar=0.99`` leaves such an image to the classifier.
"""

import matplotlib.pyplot as plt
import torch

import diffcern
from diffcern.familiarity import asked_strangeness, threshold

prior = diffcern.load_prior("embedded:digits")
data = diffcern.load_dataset("embedded:digits")
samples = [data[i] for i in range(24)]
shifts = [("clean", 0), ("blur", 1), ("noise", 1), ("occlusion", 3), ("rotation", 4), ("contrast", 4), ("noise", 4)]

# %%
# 16 evaluations for an image; here the prior is told nothing of its class.

figure, axis = plt.subplots(figsize=(8, 3.6))
limit = threshold(prior, 0.99)
rng = torch.Generator().manual_seed(0)
for row, (name, severity) in enumerate(shifts):
    images = torch.stack([diffcern.shift(s.image, name, severity, seed=0, id=s.id) for s in samples])
    told = diffcern.Condition(classes=torch.full((24, 10), 0.1))
    strange = asked_strangeness(prior, prior.encode(images), told, [s.id for s in samples])
    heights = row + 0.3 * (torch.rand(24, generator=rng) - 0.5)
    axis.scatter(strange, heights, s=14, c=["#b2182b" if value > limit else "#2166ac" for value in strange])
    print(f"{name} {severity}: {100 * (strange > limit).float().mean():.0f} % are strange")
axis.axvline(limit, color="#888", linestyle="--")
axis.text(limit, -0.75, " 99 % of clean images are left of this", fontsize=8, color="#666")
axis.set_yticks(range(len(shifts)), [f"{name} {severity or ''}" for name, severity in shifts])
axis.invert_yaxis()
axis.set(xlabel="denoising error, min-SNR weighting", xscale="log")
axis.set_xticks([0.02, 0.05, 0.1, 0.2, 0.5], ["0.02", "0.05", "0.1", "0.2", "0.5"])
axis.minorticks_off()
plt.show()
