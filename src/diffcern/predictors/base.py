"""A predictor: any image classifier, with the resize and normalisation it was trained with and its label names."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Predictor(nn.Module):
    """Wraps a classifier so that it takes images `[B, 3, H, W]` in [0, 1] of any size and returns logits `[B, K]`.

    size: side that images are resized to (None: taken as they are); crop: fraction of the resized short side that
    the centre crop keeps (1: the whole image is squeezed to `size`); images that are `size` x `size` already are taken
    as they are (ImageNet-C's come cropped). Everything is differentiable.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: nn.Module,
        class_names: Sequence[str],
        *,
        size: int | None = None,
        crop: float = 1.0,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
    ) -> None:
        super().__init__()
        self.model = model
        self.class_names = tuple(class_names)
        self.size = size
        self.crop = crop
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)
        self.eval()

    def prepare(self, images: Tensor) -> Tensor:
        """Resize, centre crop and normalise, `[B, 3, size, size]`."""
        if self.size is not None and images.shape[-2:] != (self.size, self.size):
            images = resize_and_crop(images, self.size, self.crop)
        return (images - self.mean) / self.std

    def forward(self, images: Tensor) -> Tensor:
        return self.model(self.prepare(images))


def resize_and_crop(images: Tensor, size: int, crop: float) -> Tensor:
    """Squeezes to `size` x `size` where crop is 1; else resizes the short side to size / crop and crops the centre."""
    if crop >= 1:
        return F.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)
    height, width = images.shape[-2:]
    scale = size / crop / min(height, width)
    shape = (max(size, round(height * scale)), max(size, round(width * scale)))
    images = F.interpolate(images, shape, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    top, left = (shape[0] - size) // 2, (shape[1] - size) // 2
    return images[..., top : top + size, left : left + size]
