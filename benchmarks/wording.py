"""How benchmarks write a share of images."""

from __future__ import annotations

from torch import Tensor

from diffcern.metrics import wilson


def share(right: int, total: int) -> str:
    """In per cent, with Wilson's 95 % interval."""
    low, high = wilson(right, total)
    return f"{100 * right / total:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def share_of(hits: Tensor) -> str:
    """The same, of truth values."""
    return share(int(hits.sum()), len(hits))
