"""How the gallery's pictures look: the same before every example."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt

STYLE = {
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "image.interpolation": "nearest",
    "image.cmap": "gray",
}


def reset(configuration: dict[str, Any], script: str) -> None:
    plt.rcdefaults()
    plt.rcParams.update(STYLE)
