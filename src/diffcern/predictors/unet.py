"""A small U-Net for maps: a class or a depth at every pixel."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffcern.predictors.blocks import ResidualBlock

NEAREST, FARTHEST = -4.0, 7.0  # logarithms of metres: 2 cm to 1 km


class SmallUNet(nn.Module):
    """Images `[B, 3, H, W]` of any size -> `[B, outputs, H, W]`; pre-activation blocks with BatchNorm.

    Four resolutions, from half of the image's on, of widths w, 2w, 4w, 4w, `depth` blocks each on the way down and one
    on the way up (Ronneberger et al. 2015); the answer is resized to the image, as by SegFormer and DeepLab.
    """

    def __init__(self, outputs: int, width: int = 16, depth: int = 1) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 4 * width]
        self.stem = nn.Conv2d(3, width, 3, 2, 1, bias=False)
        self.down = nn.ModuleList()
        channels = width
        for level, size in enumerate(widths):
            blocks = [ResidualBlock(channels, size, 2 if level else 1)]
            blocks += [ResidualBlock(size, size, 1) for _ in range(depth - 1)]
            self.down.append(nn.Sequential(*blocks))
            channels = size
        self.up = nn.ModuleList(
            ResidualBlock(widths[level + 1] + widths[level], widths[level], 1) for level in (2, 1, 0)
        )
        self.head = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, outputs, 1))

    def forward(self, images: Tensor) -> Tensor:
        x, kept = self.stem(images), []
        for level in self.down:
            x = level(x)
            kept.append(x)
        for level, skip in zip(self.up, kept[-2::-1], strict=True):
            x = level(torch.cat([F.interpolate(x, skip.shape[-2:], mode="nearest"), skip], 1))
        return F.interpolate(self.head(x), images.shape[-2:], mode="bilinear")


class Metres(nn.Module):
    """A network whose one channel is the logarithm of depth, as depth `[B, H, W]`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)[:, 0].clamp(NEAREST, FARTHEST).exp()
