"""
What does purification do to an image?
======================================

The image is noised to a time t*, where noise covers the corruption, and denoised by the prior. DiffPure goes back
freely; DDA keeps the low frequencies of the given image. See :doc:`purification </methods/purification>`.
"""

import matplotlib.pyplot as plt

import diffcern
from diffcern.guides import Guide, LowPass
from diffcern.sampling import purify

prior = diffcern.load_prior("embedded:scenes-text")
sample = diffcern.load_dataset("embedded:scenes")[5]
image = diffcern.shift(sample.image, "gaussian_noise", 5, seed=0, id=sample.id)[None]
latents = prior.encode(image)

# %%
# How far to go is the question: too short leaves the corruption, too far makes another image. 20 steps each, and with
# t* = 700 no longer this scene.

starts = [50, 150, 300, 500, 700]
rows = {"free": None, "guided": Guide([(0.4, LowPass(4))], form="estimate")}
figure, axes = plt.subplots(2, len(starts) + 2, figsize=(10, 3.2))
for row, (name, guide) in zip(axes, rows.items(), strict=True):
    row[0].imshow(sample.image.permute(1, 2, 0))
    row[1].imshow(image[0].permute(1, 2, 0))
    for axis, start in zip(row[2:], starts, strict=True):
        pure = purify(prior, latents, [sample.id], start=start, steps=20, guide=guide)
        axis.imshow(prior.decode(pure)[0].permute(1, 2, 0).detach())
        axis.set_title(f"t* = {start}", fontsize=9)
    row[0].set_ylabel(name, fontsize=8)
for axis in axes.flat:
    axis.set(xticks=[], yticks=[])
axes[0, 0].set_title("clean", fontsize=9)
axes[0, 1].set_title("as given", fontsize=9)
plt.show()
