"""How fast training goes, beside how fast this machine multiplies matrices: what is left to gain by another recipe."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch.utils.flop_counter import FlopCounterMode

SIDE = 1024  # of the matrices that are multiplied for the peak
PRODUCT = 2 * SIDE**3  # floating-point operations
REPEATS, ENOUGH = 6, 0.3  # of a product, in seconds: a CPU without bfloat16 takes one for each


@dataclass(frozen=True)
class Pace:
    """images: a second, over the steps since the start. operations: floating-point ones a second, those of matrix
    products and convolutions alone; peak: what products of matrices of 1024 x 1024 reach on as many threads, in float32
    or bfloat16, whichever is faster here."""

    images: float
    operations: float
    peak: float

    def __str__(self) -> str:
        rate = f"{self.operations / 1e9:.3g} GFLOP/s"
        return f"{self.images:.0f} images/s, {rate}, {self.operations / self.peak:.0%} of this machine's products"


def counted(step: Callable[[], object]) -> int:
    """The floating-point operations of the products and convolutions in `step`, both ways."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


@cache
def peak(device: torch.device) -> float:
    """Floating-point operations a second of the fastest of a few products of matrices, in float32 or bfloat16;
    measured once."""
    return PRODUCT / min(_seconds(device, numbers) for numbers in (torch.float32, torch.bfloat16))


def _seconds(device: torch.device, numbers: torch.dtype) -> float:
    a, b = (torch.ones(SIDE, SIDE, device=device, dtype=numbers) for _ in range(2))
    best, begun = float("inf"), time.perf_counter()
    for _ in range(REPEATS):  # the first one warms up
        start = time.perf_counter()
        (a @ b)[0, 0].item()  # waits for the device
        best = min(best, time.perf_counter() - start)
        if time.perf_counter() - begun > ENOUGH:
            break
    return best
