"""Worlds of many classes from scikit-learn's digits: two or three of them in one image, of one split's writers.

`digit-pairs` has 100 classes ("00" to "99"), `digit-triples` 1,000. An image is `[3, 16, 16]`: digits of 8 x 8 pixels
as scikit-learn has them, side by side, the third below. Which ones is keyed by the image's id; every class comes
equally often, and no digit of a split is in another (see `digits.SPLITS`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from diffcern.data import digits
from diffcern.data.base import Accepts, Sample
from diffcern.errors import unknown
from diffcern.rng import generator

SIDE = 8  # of a digit, in pixels
PLACES = {  # where digits stand: row and column of their upper left corner
    "digit-pairs": ((4, 0), (4, 8)),
    "digit-triples": ((0, 0), (0, 8), (8, 4)),
}
SPLITS = {  # images of each, a multiple of the classes
    "digit-pairs": {"train": 20_000, "validation": 500, "test": 1_000},
    "digit-triples": {"train": 100_000, "validation": 1_000, "test": 2_000},
}
NAMES = {  # as they follow "embedded:" -> group and split
    **{group: (group, "test") for group in SPLITS},
    **{f"{group}/{split}": (group, split) for group, splits in SPLITS.items() for split in splits},
}


@dataclass(frozen=True)
class DigitGroups:
    """One split of `digit-pairs` or `digit-triples`."""

    name: str
    split: str
    class_ids: tuple[str, ...] = ()
    accepts: Accepts = None

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        places = len(PLACES[self.name])
        return tuple(f"{number:0{places}}" for number in range(10**places))

    @cached_property
    def ids(self) -> Sequence[str]:
        return [f"{self.name}-{self.split}-{index:06d}" for index in range(len(self))]

    @cached_property
    def targets(self) -> Sequence[int]:
        return [index % len(self.class_names) for index in range(len(self))]

    def __len__(self) -> int:
        return SPLITS[self.name][self.split]

    def __getitem__(self, index: int) -> Sample:
        images, rows = _writers(self.split)
        target, id = self.targets[index], self.ids[index]
        image = torch.zeros(2 * SIDE, 2 * SIDE)
        rng = generator(digits.SPLIT_SEED, id)
        for digit, (top, left) in zip(self.class_names[target], PLACES[self.name], strict=True):
            of_digit = rows[int(digit)]
            chosen = of_digit[int(torch.randint(len(of_digit), (), generator=rng))]
            image[top : top + SIDE, left : left + SIDE] = images[chosen]
        return Sample(id, image.repeat(3, 1, 1), target)


def digit_groups(name: str, split: str) -> DigitGroups:
    """Raises UsageError for another name than those of `SPLITS`, or another split."""
    if name not in SPLITS:
        raise unknown("group of digits", name, SPLITS)
    if split not in SPLITS[name]:
        raise unknown(f"split of {name}", split, SPLITS[name])
    return DigitGroups(name, split)


@lru_cache(maxsize=3)
def _writers(split: str) -> tuple[Tensor, dict[int, list[int]]]:
    """All digits `[1797, 8, 8]` in [0, 1], and the rows of each that belong to the split."""
    chosen = digits.digits(split)
    rows: dict[int, list[int]] = {digit: [] for digit in range(10)}
    for row, target in zip(chosen.rows, chosen.targets, strict=True):
        rows[target].append(row)
    return digits.small_images(), rows
