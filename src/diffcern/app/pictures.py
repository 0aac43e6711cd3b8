"""Tensors as pictures of the page: data URIs, no file is written."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from nicegui import ui
from torch import Tensor

from diffcern.report.explained import SHARPEST, data_uri
from diffcern.resizing import interpolate

COLOURS = ("#444444", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442", "#7b5ea7", "#999933")
SIDE, SMALL = 320, 112  # pixels of what is sent to the page


def shown(picture: Tensor, alt: str, width: int = 160) -> ui.element:
    """`[3, H, W]` in [0, 1]; small ones are enlarged in whole pixels."""
    return image(data_uri(shrunk(picture, SIDE)), alt, width, sharp=max(picture.shape[-2:]) <= SHARPEST)


def image(source: str, alt: str, width: int, sharp: bool = True) -> ui.element:
    how = "image-rendering: pixelated;" if sharp else ""
    element = ui.element("img").style(f"width: min({width}px, 42vw); border-radius: 8px; {how}")
    element.props["src"], element.props["alt"] = source, alt
    return element


def thumbnail(picture: Tensor) -> str:
    """A data URI."""
    return data_uri(shrunk(picture, SMALL))


def shrunk(picture: Tensor, side: int) -> Tensor:
    """No side longer."""
    rows, columns = picture.shape[-2:]
    if max(rows, columns) <= side:
        return picture
    scale = side / max(rows, columns)
    size = max(1, round(rows * scale)), max(1, round(columns * scale))
    return interpolate(picture[None], size, "bilinear")[0].clamp(0, 1)


def masks(output: Tensor) -> Tensor:
    """The likeliest class of each pixel of `[K, H, W]`, as colours `[3, H, W]`."""
    table = torch.tensor([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in COLOURS])
    return table[output.argmax(0) % len(table)].permute(2, 0, 1)


def legend(output: Tensor, names: Sequence[str], least: float = 0.005) -> list[tuple[str, str, float]]:
    """Name, colour and share of the pixels of the classes in a map `[K, H, W]`, the largest first."""
    shares = torch.bincount(output.argmax(0).flatten(), minlength=len(names)) / output[0].numel()
    found = [(name, COLOURS[k % len(COLOURS)], float(shares[k])) for k, name in enumerate(names) if shares[k] >= least]
    return sorted(found, key=lambda each: -each[2])


def depths(output: Tensor) -> Tensor:
    """`[H, W]` in metres as grey `[3, H, W]`: near is bright."""
    near, far = output.min(), output.max()
    return (1 - (output - near) / (far - near).clamp(min=1e-6)).expand(3, *output.shape)
