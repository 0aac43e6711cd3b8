"""Images of different sizes in one batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diffcern.predictors.base import Predictor, resize_and_crop


def batch_of(images: Sequence[Tensor], predictor: Predictor) -> Tensor:
    """`[B, 3, H, W]` from images `[3, h, w]`: as they are where they agree, else each resized and cropped as the
    predictor would have done, so that what it sees does not depend on the company (224 where it takes any size)."""
    if len({image.shape for image in images}) == 1:
        return torch.stack(list(images))
    size = predictor.size or 224
    return torch.cat(
        [
            image[None] if image.shape[-2:] == (size, size) else resize_and_crop(image[None], size, predictor.crop)
            for image in images
        ]
    )
