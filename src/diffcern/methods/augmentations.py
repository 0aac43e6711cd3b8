"""Views of an image that keep its label, as CoTTA's paper draws them, and ROID's after it.

Colours (brightness, contrast, saturation, hue), a small turn, shift and scale, blur, a mirror, Gaussian noise: in the
ranges of arXiv 2203.13591, without its gamma.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffcern.rng import drawing_from

NOISE = 0.005  # standard deviation, of pixels in [0, 1]


def augmented(image: Tensor, views: int, rng: torch.Generator, mirror: bool = True) -> Tensor:
    """Views `[views, 3, H, W]` of an image `[3, H, W]` in [0, 1], on its device. mirror: half of them, left to right.

    They are drawn by `rng`, which stays as it is.
    """
    from torchvision.transforms import v2  # which takes its time

    height, width = image.shape[-2:]
    steps: list[nn.Module] = [
        v2.ColorJitter(brightness=0.4, contrast=0.3, saturation=0.5, hue=0.06),
        v2.Pad([width // 2, height // 2], padding_mode="edge"),
        v2.RandomAffine(15, translate=(1 / 32, 1 / 32), scale=(0.9, 1.1), interpolation=v2.InterpolationMode.BILINEAR),
        v2.CenterCrop((height, width)),  # of twice the image, of which a 32nd is its 16th
        v2.GaussianBlur(5, (0.001, 0.5)),
        *([v2.RandomHorizontalFlip()] if mirror else []),
        v2.GaussianNoise(sigma=NOISE),  # and within [0, 1] again
    ]
    transform, given = v2.Compose(steps), image.cpu()
    with drawing_from(rng):
        return torch.stack([transform(given) for _ in range(views)]).to(image.device)
