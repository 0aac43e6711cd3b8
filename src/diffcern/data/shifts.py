"""Shifts for small images such as the embedded digits, and one call for all shifts.

The common corruptions (`corruptions`) are scaled for natural images; these are scaled so that a classifier of
16-pixel digits falters. Each takes an image `[3, H, W]` in [0, 1] and a severity 1 to 5.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from diffcern.data.corruptions import CORRUPTIONS, corrupt, imagenet_c_view
from diffcern.data.images import UnreadableImage
from diffcern.errors import UsageError, unknown
from diffcern.rng import generator

Shift = Callable[[Tensor, int, Generator], Tensor]


def noise(image: Tensor, severity: int, rng: Generator) -> Tensor:
    """Gaussian noise of standard deviation 0.1 to 0.5."""
    return image + 0.1 * severity * torch.randn(image.shape[-2:], generator=rng)


def pepper(image: Tensor, severity: int, rng: Generator) -> Tensor:
    """Pixels replaced by black or white: 5 to 25 % of them."""
    u = torch.rand(image.shape[-2:], generator=rng)
    share = 0.05 * severity
    return torch.where(u < share / 2, 0.0, torch.where(u < share, 1.0, image))


def blur(image: Tensor, severity: int, rng: Generator) -> Tensor:
    """Gaussian blur of 0.6 to 2.2 pixels at a side of 16 (in proportion at others)."""
    from torchvision.transforms.v2.functional import gaussian_blur  # slow to import, and only needed here

    sigma = (0.2 + 0.4 * severity) * image.shape[-1] / 16
    return gaussian_blur(image, [2 * math.ceil(2 * sigma) + 1] * 2, [sigma, sigma])


def rotation(image: Tensor, severity: int, rng: Generator) -> Tensor:
    """Turned by 8 to 40 degrees, to a random side."""
    sign = 1.0 if torch.rand((), generator=rng) < 0.5 else -1.0
    angle = math.radians(8 * severity) * sign
    theta = torch.tensor([[[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0]]])
    grid = F.affine_grid(theta, [1, *image.shape], align_corners=False)
    return F.grid_sample(image[None], grid, align_corners=False)[0]


def background(image: Tensor, severity: int, rng: Generator) -> Tensor:
    """Black is lifted to a grey of 0.1 to 0.5."""
    lift = 0.1 * severity
    return lift + (1 - lift) * image


def clutter(image: Tensor, severity: int, rng: Generator) -> Tensor:
    """Smooth random texture behind the digit, of amplitude 0.15 to 0.75."""
    coarse = torch.rand(1, 1, 5, 5, generator=rng)
    texture = F.interpolate(coarse, image.shape[-2:], mode="bicubic", align_corners=True)[0, 0].clamp(0, 1)
    return torch.maximum(image, 0.15 * severity * texture)


def occlusion(image: Tensor, severity: int, rng: Generator) -> Tensor:
    """A black square of 2 to 6 sixteenths of the side, anywhere."""
    height, width = image.shape[-2:]
    side = (1 + severity) * width // 16
    top = int(torch.rand((), generator=rng) * (height - side))
    left = int(torch.rand((), generator=rng) * (width - side))
    hidden = image.clone()
    hidden[:, top : top + side, left : left + side] = 0
    return hidden


SHIFTS: dict[str, Shift] = {
    "noise": noise,
    "pepper": pepper,
    "blur": blur,
    "rotation": rotation,
    "background": background,
    "clutter": clutter,
    "occlusion": occlusion,
}


def shift(image: Tensor, name: str, severity: int, seed: int, id: str, *, whole: bool = False) -> Tensor:
    """The image under a shift of `SHIFTS` or a corruption of `CORRUPTIONS`, clipped to [0, 1].

    Keyed by (seed, id, name), not by severity: the same noise pattern at all five. "clean" at severity 0 is the
    image itself. A corruption of a photo is ImageNet-C's: the photo is resized and cropped to 224 pixels first (see
    `corruptions.imagenet_c_view`), unless `whole` asks for all of it, at its own size. Raises UsageError that lists
    what exists for an unknown name or severity.
    """
    if name == "clean" and severity == 0:
        return image
    if min(image.shape[-2:]) < 8:
        raise UnreadableImage(
            id, f"{image.shape[-1]} x {image.shape[-2]} pixels are too few to be shifted; 8 are needed"
        )
    rng = generator(seed, "shift", name, id)
    if name in CORRUPTIONS:
        return corrupt(image if whole else imagenet_c_view(image), name, severity, rng)
    if name not in SHIFTS:
        raise unknown("shift", name, ["clean", *SHIFTS, *CORRUPTIONS])
    if severity not in range(1, 6):
        raise UsageError(f"severity of {name} is 1, 2, 3, 4 or 5, not {severity}")
    return SHIFTS[name](image, severity, rng).clamp(0, 1)
