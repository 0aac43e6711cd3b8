"""Training images: a data set decoded once into memory, and the augmentations of a batch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from rich.markup import escape
from rich.progress import track
from torch import Generator, Tensor
from torch.nn import functional as F

from diffcern.data import Dataset
from diffcern.errors import DiffcernError, UsageError, unknown

MEMORY_LIMIT = 12 * 2**30  # bytes of decoded pixels kept in memory


@dataclass(frozen=True)
class ImageTable:
    """Images `[N, 3, size, size]` uint8 and targets `[N]`."""

    images: Tensor
    targets: Tensor

    def batch(self, index: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Images `[B, 3, size, size]` float32 in [0, 1] and targets `[B]`, on the device."""
        return self.images[index].to(device).float() / 255, self.targets[index].to(device)


def read_table(dataset: Dataset, size: int) -> ImageTable:
    """Decodes and resizes the whole data set. Raises DiffcernError for unlabelled data or too many pixels."""
    targets = torch.tensor([int(target) for target in dataset.targets])
    if len(targets) == 0 or targets.min() < 0:
        raise DiffcernError(f"{dataset.name} has images without a label; training needs one for each")
    if len(dataset) * 3 * size * size > MEMORY_LIMIT:
        raise DiffcernError(f"{len(dataset)} images of {size} pixels do not fit {MEMORY_LIMIT >> 30} GiB of memory")
    images = torch.empty(len(dataset), 3, size, size, dtype=torch.uint8)
    for i in track(range(len(dataset)), escape(f"reading {dataset.name}"), transient=True):
        image = dataset[i].image
        if image.shape[-2:] != (size, size):
            image = F.interpolate(image[None], (size, size), mode="bilinear", antialias=True)[0]
        images[i] = (image * 255).round().to(torch.uint8)
    return ImageTable(images, targets)


AUGMENTATIONS = {
    "flip": "mirror left-right with probability 1/2",
    "crop": "shift by up to an eighth of the side, reflecting at the border",
    "affine": "rotate by up to 8 degrees, scale by 0.92 to 1.08, shift by up to a sixteenth of the side",
}


def augment(images: Tensor, names: tuple[str, ...], generator: Generator) -> Tensor:
    """Applies the named augmentations to `[B, 3, H, W]`; each image has its own random numbers."""
    if not names:
        return images
    for name in names:
        if name not in AUGMENTATIONS:
            raise unknown("augmentation", name, AUGMENTATIONS)
    batch, side = len(images), images.shape[-1]

    def signed() -> Tensor:  # uniform in [-1, 1]
        return 2 * torch.rand(batch, generator=generator) - 1

    angle, scale, shift = torch.zeros(batch), torch.ones(batch), torch.zeros(batch, 2)
    if "affine" in names:
        angle, scale = signed() * math.radians(8), 1 + 0.08 * signed()
        shift = torch.stack([signed(), signed()], 1) / 8  # in units of half a side
    if "crop" in names:
        pixels = torch.stack([signed(), signed()], 1) * (side // 8)
        shift = shift + pixels.round() * 2 / side  # whole pixels: no interpolation blur
    mirror = (
        torch.where(torch.rand(batch, generator=generator) < 0.5, -1.0, 1.0) if "flip" in names else torch.ones(batch)
    )
    cos, sin = angle.cos() * scale, angle.sin() * scale
    theta = torch.stack(
        [torch.stack([cos * mirror, -sin, shift[:, 0]], 1), torch.stack([sin * mirror, cos, shift[:, 1]], 1)],
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
