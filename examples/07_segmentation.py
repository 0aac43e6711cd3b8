"""
Can a segmenter be repaired without labels?
===========================================

The prior reads maps of classes: told what the segmenter says of every pixel, how well is the image denoised? The
segmenter's weights move until its map explains the image.
"""

import matplotlib.pyplot as plt
import torch

import diffcern

predictor = diffcern.load_predictor("embedded:scenes-segmentation")
prior = diffcern.load_prior("embedded:scenes-segmentation")
data = diffcern.load_dataset("embedded:scenes")
samples = [data[i] for i in (2, 5, 11)]
images = torch.stack([diffcern.shift(s.image, "gaussian_noise", 5, seed=0, id=s.id) for s in samples])

# %%
# Nothing but the models differs from classification.

model = diffcern.adapt(predictor, prior)
before = predictor(images).argmax(1)
after = model(images).argmax(1)


def right(answer, sample):
    return f"{100 * (answer == sample.mask).float().mean():.0f} % of pixels"


# %%
# Three rendered scenes under Gaussian noise of severity 5: before, after, and the truth, which nobody was told.

figure, axes = plt.subplots(len(samples), 4, figsize=(7.5, 5.8))
for row, sample, image, first, second in zip(axes, samples, images, before, after, strict=True):
    row[0].imshow(image.permute(1, 2, 0))
    for axis, answer in zip(row[1:], (first, second, sample.mask), strict=True):
        axis.imshow(answer, cmap="tab10", vmin=0, vmax=9)
    row[1].set_xlabel(right(first, sample), fontsize=9)
    row[2].set_xlabel(right(second, sample), fontsize=9)
for axis, title in zip(axes[0], ("given", "before", "after", "truth"), strict=True):
    axis.set_title(title)
for axis in axes.flat:
    axis.set(xticks=[], yticks=[])
plt.show()
