"""
Which image was this before the camera turned and the light changed?
====================================================================

A :doc:`canonical view </methods/canonical-views>` is the transformation of an image that the prior finds likeliest, and
likelier than none by a margin. The predictor answers on it; no weight moves, and an image without a likelier view is
left alone.
"""

import matplotlib.pyplot as plt
import torch

import diffcern
from diffcern.canonical import Search, canonical_view

predictor = diffcern.load_predictor("embedded:digits")
prior = diffcern.load_prior("embedded:digits")
data = diffcern.load_dataset("embedded:digits")
cases = [("clean", 0, 3), ("contrast", 4, 3), ("background", 4, 41), ("rotation", 4, 23), ("rotation", 4, 77)]

# %%
# For each image the search: which gain and offset of light, which turn, and by how many nats it is likelier than the
# image as it is.

figure, axes = plt.subplots(2, len(cases), figsize=(9, 4.2))
with torch.no_grad():
    for (above, below), (name, severity, index) in zip(axes.T, cases, strict=True):
        sample = data[index]
        image = sample.image if name == "clean" else diffcern.shift(sample.image, name, severity, seed=0, id=sample.id)
        view = canonical_view(prior, image[None], sample.id, Search(rounds=1))
        seen = view.transformation.apply(image[None]).clamp(0, 1)
        for axis, shown in ((above, image[None]), (below, seen)):
            axis.imshow(shown[0].permute(1, 2, 0), vmin=0, vmax=1)
            axis.axis("off")
        above.set_title(f"{name}\nthe classifier says {predictor(image[None]).argmax()}", fontsize=9)
        found = f"{view.nats:+.0f} nats, {view.evaluations} evaluations"
        below.set_title(f"{found}\nsays {predictor(seen).argmax()} (truth {sample.target})", fontsize=9)
plt.show()

# %%
# ``diffcern.adapt(predictor, prior, method="canonical")`` does this for a batch, and denoises what needs it.
