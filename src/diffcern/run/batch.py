"""Images of different sizes in one batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diffcern.predictors.base import Predictor, resize_and_crop

ANY_SIZE = 224  # side of images for a predictor that takes any size, where theirs differ


def batch_of(images: Sequence[Tensor], predictor: Predictor) -> Tensor:
    """`[B, 3, H, W]` from images `[3, h, w]`: as they are where they agree, else each resized and cropped as the
    predictor would have done, so that what it sees does not depend on the company."""
    if len({image.shape for image in images}) == 1:
        return torch.stack(list(images))
    if predictor.size is None:
        return torch.cat([resize_and_crop(image[None], ANY_SIZE) for image in images])
    return torch.cat([predictor.resize(image[None]) for image in images])
