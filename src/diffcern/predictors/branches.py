"""Several continuations of one prompt in one sequence: the prompt is read once, and each of them as if it were alone.

Knows nothing about questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence


@dataclass(frozen=True)
class Branches:
    """Rows of tokens: a prefix, and branches that read the prefix and themselves but none another.

    ids, positions, owners: `[B, T]`; owners is 0 for the prefix, k for branch k, -1 for padding. prefix: `[B]`, its
    lengths. All but ids may have one row for all. Every token has what a plain sequence of prefix and branch gives it.
    """

    ids: Tensor
    positions: Tensor
    owners: Tensor
    prefix: Tensor

    @property
    def mask(self) -> Tensor:
        """`[B, T, T]`: whether token i reads token j."""
        reader, read = self.owners[:, :, None], self.owners[:, None, :]
        return ((read == 0) | (read == reader)) & torch.ones_like(reader == read).tril()

    @property
    def before(self) -> Tensor:
        """`[B, T]`: where the token stands that each follows; the first of every branch follows the prefix."""
        previous = torch.arange(-1, self.owners.shape[1] - 1, device=self.owners.device)
        starts = self.owners != self.owners.roll(1, 1)
        return torch.where(starts, self.prefix[:, None] - 1, previous)

    def to(self, device: torch.device) -> Branches:
        return Branches(*(part.to(device) for part in (self.ids, self.positions, self.owners, self.prefix)))


def branched(prefixes: Sequence[list[int]], branches: Sequence[Sequence[list[int]]], padding: int) -> Branches:
    """One row for each prefix and its branches, padded behind."""
    rows: list[tuple[list[int], list[int], list[int]]] = []
    for prefix, own in zip(prefixes, branches, strict=True):
        ids, positions, owners = list(prefix), list(range(len(prefix))), [0] * len(prefix)
        for k, tokens in enumerate(own, start=1):
            ids += tokens
            positions += range(len(prefix), len(prefix) + len(tokens))
            owners += [k] * len(tokens)
        rows.append((ids, positions, owners))
    padded = [
        pad_sequence([torch.tensor(part) for part in parts], batch_first=True, padding_value=value)
        for parts, value in zip(zip(*rows, strict=True), (padding, 0, -1), strict=True)
    ]
    return Branches(padded[0], padded[1], padded[2], torch.tensor([len(prefix) for prefix in prefixes]))


def log_likelihoods(model: Any, sequence: Branches, pixels: Tensor) -> Tensor:
    """`[B, T]` fp32: log p of every branch token given the image and what it reads; 0 elsewhere.

    model: a LlavaForConditionalGeneration; pixels: prepared images `[B, 3, h, w]`.
    """
    first = int(sequence.prefix.min())  # no logits are needed before the token that precedes it
    mask = torch.zeros(sequence.mask[:, None].shape, dtype=pixels.dtype, device=pixels.device)
    mask = mask.masked_fill(~sequence.mask[:, None], torch.finfo(pixels.dtype).min)
    logits = model(
        input_ids=sequence.ids,
        pixel_values=pixels,
        attention_mask=mask,
        position_ids=sequence.positions,
        use_cache=False,
        logits_to_keep=sequence.ids.shape[1] - first + 1,
    ).logits
    rows = torch.arange(len(sequence.ids), device=pixels.device)[:, None]
    before = (sequence.before[:, first:] - first + 1).clamp(min=0)
    found = logits.float().log_softmax(-1)[rows, before, sequence.ids[:, first:]]
    return F.pad(found.masked_fill(sequence.owners[:, first:] <= 0, 0.0), (first, 0))
