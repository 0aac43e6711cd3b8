"""Noise: each pixel and channel is disturbed on its own.

Every function takes an image `[3, H, W]` float32 in [0, 1], a CPU generator and one row of its table, and
returns the corrupted image, not yet clipped to [0, 1]. The tables hold the published parameters by image
size, severity 1 to 5 (hendrycks/robustness: make_cifar_c.py for 32, make_tinyimagenet_c.py for 64,
make_imagenet_c.py for 224).
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

Table = dict[int, list[tuple[float, ...]]]  # image size -> severity - 1 -> parameters

GAUSSIAN_NOISE: Table = {  # standard deviation
    32: [(0.04,), (0.06,), (0.08,), (0.09,), (0.10,)],
    64: [(0.04,), (0.08,), (0.12,), (0.15,), (0.18,)],
    224: [(0.08,), (0.12,), (0.18,), (0.26,), (0.38,)],
}


def gaussian_noise(image: Tensor, generator: Generator, std: float) -> Tensor:
    """Additive normal noise, as in low light."""
    return image + std * torch.randn(image.shape, generator=generator)


SHOT_NOISE: Table = {  # photons that make full intensity
    32: [(500,), (250,), (100,), (75,), (50,)],
    64: [(250,), (100,), (50,), (30,), (15,)],
    224: [(60,), (25,), (12,), (5,), (3,)],
}


def shot_noise(image: Tensor, generator: Generator, photons: float) -> Tensor:
    """Poisson noise: light arrives in whole photons."""
    return torch.poisson(image * photons, generator) / photons


IMPULSE_NOISE: Table = {  # fraction of values replaced
    32: [(0.01,), (0.02,), (0.03,), (0.05,), (0.07,)],
    64: [(0.01,), (0.02,), (0.05,), (0.08,), (0.14,)],
    224: [(0.03,), (0.06,), (0.09,), (0.17,), (0.27,)],
}


def impulse_noise(image: Tensor, generator: Generator, fraction: float) -> Tensor:
    """Salt and pepper: that fraction of the values, channel by channel, becomes 0 or 1 with equal chance."""
    u = torch.rand(image.shape, generator=generator)
    return torch.where(u < fraction / 2, 0.0, torch.where(u >= 1 - fraction / 2, 1.0, image))


SPECKLE_NOISE: Table = {  # standard deviation at full intensity
    32: [(0.06,), (0.10,), (0.12,), (0.16,), (0.20,)],
    64: [(0.15,), (0.20,), (0.25,), (0.30,), (0.35,)],
    224: [(0.15,), (0.20,), (0.35,), (0.45,), (0.60,)],
}


def speckle_noise(image: Tensor, generator: Generator, std: float) -> Tensor:
    """Normal noise in proportion to the intensity."""
    return image + image * std * torch.randn(image.shape, generator=generator)
