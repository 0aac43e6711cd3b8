"""Draws docs/images/canonical-views.png: images, what they may have been, and how likely each is to the prior.

python docs/views_picture.py
"""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib import pyplot as plt
from torch import Tensor

from diffcern.data import load_dataset
from diffcern.data.shifts import shift
from diffcern.priors import load_prior
from diffcern.search import Search
from diffcern.transformations import IDENTITY, Transformation
from diffcern.views import FAMILIES
from diffcern.weighing import Scale

DRAWS, SHOWN = 64, 9
ROWS = (("contrast", "light", 3), ("background", "light", 41), ("rotation", "turn", 23), ("rotation", "turn", 77))


def candidates(image: Tensor, family: str) -> list[Transformation]:
    own = image.clone()
    others = {g: (g.apply(image) - own).abs().max() for g in FAMILIES[family].grid(IDENTITY, image)}
    return [IDENTITY, *(g for g, moved in others.items() if moved > 0.03)][:SHOWN]


def main() -> None:
    prior, data = load_prior("embedded:digits"), load_dataset("embedded:digits")
    figure, axes = plt.subplots(len(ROWS), SHOWN, figsize=(1.0 * SHOWN, 1.35 * len(ROWS)), dpi=110)
    for row, (name, family, index) in zip(axes, ROWS, strict=True):
        sample = data[index]
        image = shift(sample.image, name, 4, 0, sample.id)[None]
        scale = Scale(prior, image, lambda image: image, sample.id, 0, Search())
        views = candidates(image, family)
        nats = scale.weigh(views, scale.draws(DRAWS), scale.level(views, FAMILIES[family].low)).mean(1)
        best = int(nats.argmax())
        for axis in row:
            axis.set_axis_off()
        for k, (axis, view) in enumerate(zip(row, views, strict=False)):  # rows differ in length
            axis.imshow(view.apply(image)[0].clamp(0, 1).permute(1, 2, 0), vmin=0, vmax=1)
            said = "as it is" if k == 0 else f"{nats[k] - nats[0]:+.0f} nats"
            axis.set_title(said, fontsize=8, weight="bold" if k == best else "normal")
        row[0].text(-0.25, 0.5, name, rotation=90, va="center", ha="center", transform=row[0].transAxes, fontsize=8)
    figure.tight_layout()
    figure.savefig(Path(__file__).parent / "images" / "canonical-views.png")


if __name__ == "__main__":
    with torch.no_grad():
        main()
