"""Images of any sizes as a batch on a device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diffcern.resizing import Images


def batch_of(images: Sequence[Tensor], device: torch.device) -> Images:
    """One tensor `[B, 3, H, W]` where the images have one size, else as they are: whoever looks at them resizes each by
    itself, so that what it sees does not depend on the company."""
    moved = [image.to(device) for image in images]
    return torch.stack(moved) if len({image.shape for image in moved}) == 1 else moved
