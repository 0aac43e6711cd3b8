"""
Which caption is true of which image?
=====================================

Two scenes differ in one thing, and of two captions each is true of one. A text-to-image prior denoises each image
under each caption: where the error is least, the caption :doc:`matches </methods/matching>`.
"""

from textwrap import fill

import matplotlib.pyplot as plt
import torch

import diffcern
from diffcern.data import load_pairs

prior = diffcern.load_prior("embedded:scenes-text")
pairs = load_pairs("embedded:scenes")
examples = [pairs[i] for i in (0, 1, 2)]

# %%
# Every image meets the same noise under both captions, so that only the captions make a difference.

figure, axes = plt.subplots(len(examples), 2, figsize=(9, 6))
for row, example in zip(axes, examples, strict=True):
    latents = torch.cat([prior.encode(image[None]) for image in example.images])
    draws = diffcern.draw("stratified", 64, latents, [example.id] * 2, seed=0, num_timesteps=prior.num_timesteps)
    errors = diffcern.score(prior, latents, prior.prompts(example.captions), draws, weighting="x0")
    margins, deviations = errors.margin()
    for k, axis in enumerate(row):
        best = int(errors.mean[k].argmin())
        axis.imshow(example.images[k].permute(1, 2, 0))
        axis.set_anchor("W")
        sure = margins[k] / deviations[k]
        verdict = "right" if best == k else "wrong"
        said = f"{fill(example.captions[best], 26)}\n\n{verdict}, {sure:.1f} standard errors"
        axis.text(1.05, 0.5, said, transform=axis.transAxes, va="center", fontsize=8)
        axis.axis("off")
plt.show()

# %%
# ``diffcern match embedded:scenes --prior embedded:scenes-text`` does this for a whole set, scored as Winoground is.
