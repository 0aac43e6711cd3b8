"""The embedded data set: scikit-learn's 1,797 handwritten digits, available without a download.

Three disjoint splits: weights are trained on `train`, hyper-parameters (steps, learning rates, start times)
are chosen on `validation`, and figures are reported on `test`, which no choice has looked at; a number
reported on the samples that chose its settings would be too good.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from diffcern.data.base import Accepts, Sample, stratified
from diffcern.errors import unknown

SPLITS = {"train": 1197, "validation": 200, "test": 400}
SPLIT_SEED = 0  # never changes: another seed would report on images that the shipped weights were trained on


@dataclass(frozen=True)
class Digits:
    """One split of the digits as `[3, 16, 16]` images: `rows` are rows of scikit-learn's table."""

    rows: Sequence[int]
    name: str = "digits"
    class_names: tuple[str, ...] = tuple("0123456789")
    class_ids: tuple[str, ...] = ()
    accepts: Accepts = None

    @cached_property
    def ids(self) -> Sequence[str]:
        return [_id(row) for row in self.rows]

    @cached_property
    def targets(self) -> Sequence[int]:
        _, targets = _table()
        return [targets[row] for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        row = self.rows[index]
        images, targets = _table()
        return Sample(_id(row), images[row].repeat(3, 1, 1), targets[row])


def digits(split: str) -> Digits:
    """The split `train` (1,197), `validation` (200) or `test` (400), each with the same class shares."""
    if split not in SPLITS:
        raise unknown("split of digits", split, SPLITS)
    return Digits(_splits()[split])


def _id(row: int) -> str:
    return f"digits-{row:04d}"


def small_images() -> Tensor:
    """Those of all splits as scikit-learn has them, `[1797, 8, 8]` in [0, 1]."""
    return _loaded()[0]


@lru_cache(maxsize=1)
def _loaded() -> tuple[Tensor, list[int]]:
    """Images `[1797, 8, 8]`, of grey levels 0..16, and targets."""
    from sklearn.datasets import load_digits  # slow to import, and only needed here

    bunch = load_digits()
    return torch.from_numpy(bunch.images).float().div(16), bunch.target.tolist()


@lru_cache(maxsize=1)
def _table() -> tuple[Tensor, list[int]]:
    """Images `[1797, 16, 16]` in [0, 1], bilinear, and targets."""
    small, targets = _loaded()
    return F.interpolate(small[:, None], scale_factor=2, mode="bilinear", align_corners=False)[:, 0], targets


@lru_cache(maxsize=1)
def _splits() -> dict[str, tuple[int, ...]]:
    """The remaining rows are dealt out one split after the other, each class-stratified."""
    _, targets = _table()
    rows = list(range(len(targets)))
    splits = {}
    for split, count in sorted(SPLITS.items()):  # test, train, validation
        chosen = stratified([_id(row) for row in rows], [targets[row] for row in rows], count, SPLIT_SEED)
        splits[split] = tuple(rows[i] for i in chosen)
        rows = sorted(set(rows) - set(splits[split]))
    return splits
