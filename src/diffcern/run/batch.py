"""Images of any sizes as a batch on a device, and streams cut into batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from diffcern.resizing import Images

T = TypeVar("T")
ALONE = "the only image of its batch that can be read, and one image has no batch statistics"


def batch_of(images: Sequence[Tensor], device: torch.device) -> Images:
    """One tensor `[B, 3, H, W]` where the images have one size, else as they are: whoever looks at them resizes each by
    itself, so that what it sees does not depend on the company."""
    moved = [image.to(device) for image in images]
    return torch.stack(moved) if len({image.shape for image in moved}) == 1 else moved


def even_batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Batches of `size`, in order; the last two share what is left where that would not fill the last.

    The statistics of a left-over of one image are no batch's: TENT turned the last of 33 digits from 8 (0.9998) to 3.
    """
    waiting: list[T] = []
    for item in items:
        waiting.append(item)
        if len(waiting) == 2 * size:
            yield waiting[:size]
            del waiting[:size]
    half = len(waiting) if len(waiting) <= size else -(-len(waiting) // 2)
    for batch in (waiting[:half], waiting[half:]):
        if batch:
            yield batch
