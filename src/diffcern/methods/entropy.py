"""The entropy of an answer, which most methods without a prior lower, and by which today's leave images out."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

Share = Annotated[float, Field(ge=0, le=1)]  # an option, of the largest entropy that there is among others


def entropy(logits: Tensor) -> Tensor:
    """H = -sum_k p_k log p_k in nats, over the classes: `[B, K, ...]` -> `[B, ...]`."""
    return -(logits.softmax(1) * logits.log_softmax(1)).sum(1)


def largest(logits: Tensor) -> float:
    """ln K, the entropy of knowing nothing; of logits `[B, K, ...]`."""
    return math.log(logits.shape[1])


def average_of(values: Tensor, chosen: Tensor) -> Tensor:
    """The mean of those `[B]` that are chosen `[B]`, 0 where none is."""
    return torch.where(chosen, values, 0.0).sum() / chosen.sum().clamp(min=1)
