"""
The picture has faded, or fog has come: can one frame be read without moving a weight?
======================================================================================

A :doc:`canonical view </methods/canonical-views>` of a photo: contrast about the channels' own means, their range, a
colour cast, a veil of haze. The prior says which of them makes the picture likelier, and the segmenter is shown that.
"""

import matplotlib.pyplot as plt
import torch

import diffcern
from diffcern.canonical import Search, canonical_view

predictor = diffcern.load_predictor("embedded:scenes-segmentation")
prior = diffcern.load_prior("embedded:scenes-segmentation", torch.bfloat16)
data = diffcern.load_dataset("embedded:scenes")
cases = [("contrast", 2), ("contrast", 5), ("fog", 5), ("fog", 11), ("clean", 2)]
search = Search(families=("colour", "haze"), budget=160)

# %%
# Contrast of severity 5 leaves a twentieth of what there was: a dozen grey levels. A clean picture has no view that is
# likelier by its prior's margin, and stays as it is.

figure, axes = plt.subplots(len(cases), 5, figsize=(9.5, 8.6))
with torch.no_grad():
    for row, (name, index) in zip(axes, cases, strict=True):
        sample = data[index]
        severity = 0 if name == "clean" else 5
        image = diffcern.shift(sample.image, name, severity, seed=0, id=sample.id)[None]
        view = canonical_view(prior, image, sample.id, search, looked_at=predictor.view)
        seen = view.transformation.apply(image).clamp(0, 1)
        before, after = predictor(image).argmax(1)[0], predictor(seen).argmax(1)[0]
        row[0].imshow(image[0].permute(1, 2, 0), vmin=0, vmax=1)
        row[1].imshow(before, cmap="tab10", vmin=0, vmax=9)
        row[2].imshow(seen[0].permute(1, 2, 0), vmin=0, vmax=1)
        row[3].imshow(after, cmap="tab10", vmin=0, vmax=9)
        row[4].imshow(sample.mask, cmap="tab10", vmin=0, vmax=9)
        row[0].set_ylabel(name)
        for axis, answer in ((row[1], before), (row[3], after)):
            axis.set_xlabel(f"{100 * (answer == sample.mask).float().mean():.0f} % of pixels", fontsize=9)
        row[2].set_xlabel(f"{view.nats:+,.0f} nats, {view.evaluations} asked", fontsize=9)
for axis, title in zip(axes[0], ("given", "says", "its view", "says", "truth"), strict=True):
    axis.set_title(title)
for axis in axes.flat:
    axis.set(xticks=[], yticks=[])
figure.tight_layout()
plt.show()

# %%
# ``diffcern.adapt(predictor, prior, method="canonical", views=("colour", "haze"), budget=160)`` does this for a batch.
