"""
Is one method better than another?
==================================

Two methods on the same images: the difference of their accuracies, with a paired interval. It answers the question
that two intervals side by side do not, for what is hard for one method is hard for the other.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

import diffcern
from diffcern.metrics import wilson

predictor, prior = diffcern.load_predictor("embedded:digits"), diffcern.load_prior("embedded:digits")
data = diffcern.load_dataset("embedded:digits")
images = torch.stack([diffcern.shift(data[i].image, "noise", 4, seed=0, id=data[i].id) for i in range(60)])
targets = torch.tensor([data[i].target for i in range(60)])

# %%
# Online TENT sees these images in batches of 30; Diffusion-TTA each alone.

right = {}
for name in ("source", "tent", "diffusion-tta"):
    model = diffcern.adapt(predictor, prior, method=name, online=name == "tent")
    answers = torch.cat([model(batch).argmax(-1) for batch in images.split(30)])
    right[name] = (answers == targets).numpy().astype(float)

# %%
# The bootstrap draws images, and both methods keep their answers on each.

drawn = np.random.default_rng(0).integers(0, len(targets), (2000, len(targets)))
pairs = [("diffusion-tta", "source"), ("tent", "source"), ("diffusion-tta", "tent")]
figure, (own, between) = plt.subplots(1, 2, figsize=(9, 2.6), width_ratios=(1, 1.2))
for row, hits in enumerate(right.values()):
    low, high = wilson(int(hits.sum()), len(hits))
    own.plot([100 * low, 100 * high], [row, row], color="#2166ac")
    own.plot(100 * hits.mean(), row, "o", color="#2166ac")
own.set_yticks(range(len(right)), right)
own.set(xlabel="accuracy, % (95 % Wilson)", ylim=(2.5, -0.5))
for row, (first, second) in enumerate(pairs):
    difference = 100 * (right[first] - right[second])
    low, high = np.percentile(difference[drawn].mean(1), [2.5, 97.5])
    print(f"{first} - {second}: {difference.mean():+.1f} points [{low:.1f}, {high:.1f}]")
    between.plot([low, high], [row, row], color="#2166ac")
    between.plot(difference.mean(), row, "o", color="#2166ac")
between.axvline(0, color="#bbb")
between.set_yticks(range(len(pairs)), [f"{first} - {second}" for first, second in pairs])
between.set(xlabel="difference, points (95 % paired bootstrap)", ylim=(2.5, -0.5))
plt.show()
