"""
How do I bring a network of my own?
===================================

Any torch module that answers with logits, in ``diffcern.Predictor``, which knows its size, its normalisation and the
names of its classes. Here a small network is trained first; then it is adapted.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.utils.data import DataLoader

import diffcern

torch.manual_seed(0)
network = nn.Sequential(
    *(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
    *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(2)),
    *(nn.Flatten(), nn.Linear(128, 10)),
)

# %%
# The embedded data sets are data sets of torch: six passes over the digits of the training split take seconds.

train = diffcern.load_dataset("embedded:digits/train")
optimizer = torch.optim.Adam(network.parameters(), 3e-3)
for _ in range(6):
    for images, targets in DataLoader(train, batch_size=64, shuffle=True):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images - 0.5), targets).backward()
        optimizer.step()

# %%
# What was subtracted in training is the predictor's ``mean``. Classes meet the prior's by name.

predictor = diffcern.Predictor(network.eval(), train.class_names, size=16, mean=(0.5, 0.5, 0.5))
model = diffcern.adapt(predictor, diffcern.load_prior("embedded:digits"), familiar=0.99)
data = diffcern.load_dataset("embedded:digits")
targets = torch.tensor(data.targets[:30])
scores = {}
for name, severity in (("clean", 0), ("noise", 4), ("blur", 4)):
    images = torch.stack([diffcern.shift(data[i].image, name, severity, seed=0, id=data[i].id) for i in range(30)])
    scores[name] = [100 * (answer(images).argmax(-1) == targets).float().mean() for answer in (predictor, model)]

figure, axis = plt.subplots(figsize=(6, 2.8))
before, after = zip(*scores.values(), strict=True)
axis.bar([k - 0.2 for k in range(3)], before, 0.4, color="#b8bcc4", label="as trained")
axis.bar([k + 0.2 for k in range(3)], after, 0.4, color="#2166ac", label="adapted to each image")
axis.set_xticks(range(3), scores)
axis.set(ylabel="accuracy, % of 30", ylim=(0, 105))
axis.legend(fontsize=8, ncols=2)
plt.show()
