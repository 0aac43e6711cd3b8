"""Images and the maps that they come with, mirrored together."""

from __future__ import annotations

import torch
from torch import Tensor

from diffcern.errors import UsageError
from diffcern.train.images import augmentation_names


def mirrored(images: Tensor, truth: Tensor, flip: bool, rng: torch.Generator) -> tuple[Tensor, Tensor]:
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
