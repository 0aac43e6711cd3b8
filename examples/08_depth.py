"""
Can a depth network be helped under noise?
==========================================

Depth suffers from noise that the network has not seen. Here purification does more than feedback (the tables are in
:doc:`reproduction </reproduction>`): DDA noises the image, denoises it under guidance, and answers with the mean of
what the network says of both.
"""

import matplotlib.pyplot as plt
import torch

import diffcern

predictor = diffcern.load_predictor("embedded:scenes-depth")
prior = diffcern.load_prior("embedded:scenes-depth")
data = diffcern.load_dataset("embedded:scenes")
samples = [data[i] for i in (2, 5, 11)]
images = torch.stack([diffcern.shift(s.image, "gaussian_noise", 5, seed=0, id=s.id) for s in samples])

# %%
# ``model(images)`` is a depth map of metres, as ``predictor(images)`` is. The image is purified on the way.

model = diffcern.adapt(predictor, prior, method="dda")
before = predictor(images).detach()
after = model(images)


def error(answer, sample):
    return f"{100 * ((answer - sample.depth).abs() / sample.depth).mean():.0f} % off"


# %%
# Three rendered scenes under Gaussian noise of severity 5, darker is nearer; below each map its mean relative error.

figure, axes = plt.subplots(len(samples), 4, figsize=(7.5, 5.8))
for row, sample, image, first, second in zip(axes, samples, images, before, after, strict=True):
    row[0].imshow(image.permute(1, 2, 0))
    low, high = sample.depth.log().aminmax()
    for axis, answer in zip(row[1:], (first, second, sample.depth), strict=True):
        axis.imshow(answer.log(), cmap="magma", vmin=low, vmax=high)
    row[1].set_xlabel(error(first, sample), fontsize=9)
    row[2].set_xlabel(error(second, sample), fontsize=9)
for axis, title in zip(axes[0], ("given", "before", "after", "truth"), strict=True):
    axis.set_title(title)
for axis in axes.flat:
    axis.set(xticks=[], yticks=[])
plt.show()
