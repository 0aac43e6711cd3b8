"""Images of different sizes in one batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from diffcern.predictors import Predictor


def batch_of(images: Sequence[Tensor], predictor: Predictor | None = None) -> Tensor:
    """`[B, 3, H, W]` from images `[3, h, w]`: as they are where they agree, else their centre squares at the size
    that the predictor resizes to before its crop (224 where it takes any size)."""
    if len({image.shape for image in images}) == 1:
        return torch.stack(list(images))
    size = 224 if predictor is None or predictor.size is None else round(predictor.size / predictor.crop)
    return torch.cat([_square(image, size) for image in images])


def _square(image: Tensor, size: int) -> Tensor:
    height, width = image.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    crop = image[None, :, top : top + side, left : left + side]
    return F.interpolate(crop, (size, size), mode="bilinear", antialias=True, align_corners=False)
