"""From a Pillow image to floats: cropped, shrunk in bands, upright; every mode that has a fixed range."""

from __future__ import annotations

import contextlib

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

BAND_PIXELS = 4_000_000  # converted to float32 at a time when shrinking
# EXIF orientation -> quarter turns counter-clockwise, then the axes of [C, H, W] to flip
_UPRIGHT = {2: (0, [2]), 3: (2, []), 4: (0, [1]), 5: (-1, [2]), 6: (-1, []), 7: (1, [2]), 8: (1, [])}


def shrink(image: Image.Image, file_format: str | None, max_side: int | None) -> Tensor:
    """`[3, H, W]` with no side above `max_side`: box average by an integer, then antialiased bilinear."""
    width, height = image.size
    long = max(width, height)
    if max_side is None or long <= max_side:
        return _expand(_pixels(image, file_format))
    factor = long // max_side
    rows = factor * max(1, BAND_PIXELS // (width * factor))
    small = torch.empty(0)
    for top in range(0, height, rows):
        band = _pixels(image.crop((0, top, width, min(top + rows, height))), file_format)
        band = F.avg_pool2d(band, factor, ceil_mode=True)  # edge cells average the pixels they have
        if top == 0:  # one block for all: small results between large freed bands would fragment the heap
            small = torch.empty(len(band), -(-height // factor), band.shape[2])
        small[:, top // factor : top // factor + band.shape[1]] = band
    small = F.interpolate(small[None], fit((height, width), max_side), mode="bilinear", antialias=True)[0]
    return _expand(small.clamp_(0, 1))  # rounding may leave 1 + 1e-7


def fit(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    """The size scaled so that its longer side is `max_side`."""
    scale = max_side / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _expand(pixels: Tensor) -> Tensor:
    return pixels if len(pixels) == 3 else pixels.repeat(3, 1, 1)


def _pixels(image: Image.Image, file_format: str | None) -> Tensor:
    """`[1 or 3, H, W]` float32 in [0, 1] for any mode; a crop no longer knows its file's format."""
    if image.mode.startswith("I;16") or (image.mode == "I" and file_format in {"PNG", "PPM"}):
        # Pillow's convert("L") would clip 16 bits at 255
        grey = np.asarray(image).astype(np.float32)
        clear = image.info.get("transparency")  # PNG: one value that is transparent
        return torch.from_numpy(np.where(grey == clear, 65535, grey) if isinstance(clear, int) else grey)[None].div(
            65535
        )
    if image.mode in {"I", "F"}:
        raise ValueError("32-bit pixels have no fixed range; save the image with 8 or 16 bits per channel")
    if image.has_transparency_data:
        rgba = _bytes(image, "RGBA")
        colour, opacity = rgba[:3], rgba[3:]
        return colour * opacity + (1 - opacity)
    return _bytes(image, "L" if image.mode in {"1", "L"} else "RGB")


def _bytes(image: Image.Image, mode: str) -> Tensor:
    """`[C, H, W]`, exactly k/255, of the image in an 8-bit mode."""
    array = np.array(image if image.mode == mode else image.convert(mode)).reshape(image.height, image.width, -1)
    return torch.from_numpy(array).permute(2, 0, 1).contiguous().float().div_(255)


def orientation_of(image: Image.Image) -> int:
    with contextlib.suppress(Exception):  # damaged EXIF does not make the picture unreadable
        return int(image.getexif().get(0x0112, 1))
    return 1


def upright(pixels: Tensor, orientation: int) -> Tensor:
    """Turn and mirror `[C, H, W]` as the EXIF orientation 1-8 says; other values mean upright."""
    turns, axes = _UPRIGHT.get(orientation, (0, []))
    return torch.rot90(pixels, turns, (1, 2)).flip(axes)
