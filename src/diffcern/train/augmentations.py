"""The augmentations of a batch of training images: of their geometry, which maps follow, and of their light, which they
do not."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from diffcern.errors import UsageError, unknown

AUGMENTATIONS = {
    "flip": "mirror left-right with probability 1/2",
    "crop": "shift by up to an eighth of each side, reflecting at the border",
    "affine": "rotate by up to 8 degrees, scale by 0.92 to 1.08, shift by up to a sixteenth of each side",
    "light": "for half of the images a gamma of 0.6 to 1.7, a tint, and an even veil of up to two thirds",
}
LIGHT = "light"  # all others are of the geometry
GAMMA, TINT, VEIL = 1.7, 0.15, 2 / 3


def augment(images: Tensor, names: tuple[str, ...], generator: Generator) -> Tensor:
    """Applies the named augmentations to `[B, 3, H, W]`; each image has its own random numbers."""
    return relit(moved(images, names, generator), names, generator)


def relit(images: Tensor, names: tuple[str, ...], generator: Generator) -> Tensor:
    """Images `[B, C, H, W]` in [0, 1] in another light, where "light" is named:

        x -> (1 - a) gain_c x^gamma + a v,    a ~ U(0, 2/3), v ~ U(0, 1), gain_c ~ U(0.85, 1.15), ln gamma uniform

    with probability 1/2. The veil is one grey over the whole image: low contrast is among its results, fog that varies
    over an image, frost and snow are not.
    """
    if LIGHT not in names:
        return images
    batch, channels = images.shape[:2]
    drawn = torch.rand(batch, 4 + channels, 1, 1, generator=generator).to(images.device)
    changed, gamma, veil, grey, tint = drawn[:, :1], drawn[:, 1:2], drawn[:, 2:3] * VEIL, drawn[:, 3:4], drawn[:, 4:]
    lit = images.clamp(0, 1) ** (GAMMA ** (2 * gamma - 1)) * (1 + TINT * (2 * tint - 1))
    return torch.where(changed < 0.5, ((1 - veil) * lit + veil * grey).clamp(0, 1), images)


def moved(images: Tensor, names: tuple[str, ...], generator: Generator) -> Tensor:
    """Images, or images with maps, `[B, C, H, W]` under the named augmentations of the geometry."""
    if not set(names) - {LIGHT}:
        return images
    batch, (height, width) = len(images), images.shape[-2:]

    def signed() -> Tensor:  # uniform in [-1, 1]
        return 2 * torch.rand(batch, generator=generator) - 1

    angle, scale, shift = torch.zeros(batch), torch.ones(batch), torch.zeros(batch, 2)
    if "affine" in names:
        angle, scale = signed() * math.radians(8), 1 + 0.08 * signed()
        shift = torch.stack([signed(), signed()], 1) / 8  # in units of half a side
    if "crop" in names:
        sides = torch.tensor([width, height])
        pixels = torch.stack([signed(), signed()], 1) * (sides // 8)
        shift = shift + pixels.round() * 2 / sides  # whole pixels: no interpolation blur
    mirror = (
        torch.where(torch.rand(batch, generator=generator) < 0.5, -1.0, 1.0) if "flip" in names else torch.ones(batch)
    )
    cos, sin = angle.cos() * scale, angle.sin() * scale
    ratio = height / width  # a turn is one of pixels, and coordinates go from -1 to 1 along either side
    theta = torch.stack(
        [
            torch.stack([cos * mirror, -sin * ratio, shift[:, 0]], 1),
            torch.stack([sin * mirror / ratio, cos, shift[:, 1]], 1),
        ],
        1,
    )
    grid = F.affine_grid(theta.to(images.device), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def augmentation_names(text: str) -> tuple[str, ...]:
    """Parses "flip,crop" (or "none"). Raises UsageError for an unknown name."""
    names = tuple(name.strip() for name in text.split(",") if name.strip() not in ("", "none"))
    for name in names:
        if name not in AUGMENTATIONS:
            raise unknown("augmentation", name, AUGMENTATIONS)
    if len(set(names)) < len(names):
        raise UsageError(f"an augmentation is named twice in {text!r}")
    return names


def mirrored(images: Tensor, truth: Tensor, flip: bool, rng: Generator) -> tuple[Tensor, Tensor]:
    """Images `[B, 3, H, W]` and their maps `[B, h, w]`, half of them left-right where `flip`."""
    turned = (torch.rand(len(images), generator=rng) < 0.5).to(images.device) & flip
    return (
        torch.where(turned[:, None, None, None], images.flip(-1), images),
        torch.where(turned[:, None, None], truth.flip(-1), truth),
    )


def mirrors(augmentation: str) -> bool:
    """Whether the named augmentations mirror images with their maps. Raises UsageError for any other one."""
    names = augmentation_names(augmentation)
    if set(names) - {"flip"}:
        raise UsageError("maps are trained with --augment flip or none: others would blur them")
    return "flip" in names
