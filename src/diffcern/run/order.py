"""The order of a stream: a random one, and whether it comes class after class, where what adapts along it forgets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from diffcern.data import Dataset, Subset, UnreadableImage
from diffcern.rng import generator
from diffcern.run.predict import Answer

ENOUGH = 20  # answers, before anything is said
SHARE, DEVIATIONS = 0.75, 3.5
SHUFFLES = 200


WARNING = (
    "warning: the images come class after class, and what adapts along such a stream forgets the classes that it does "
    "not see: give --shuffle, or take images as they come in use"
)


def shuffled(dataset: Dataset, seed: int) -> Dataset:
    """The same images in an order that the seed decides."""
    return Subset(dataset, torch.randperm(len(dataset), generator=generator(seed, "stream")).tolist())


Answers = Iterator[Answer | UnreadableImage]


def warned(given: Answers, warn: Callable[[str], object]) -> Answers:
    """The answers as they come; warn(text) once they show that the stream goes by classes, as the predictor sees it
    before it is adapted."""
    order, told = ClassOrder(), False
    for answer in given:
        if isinstance(answer, Answer) and not told:
            order.add([int(answer.before.argmax())])
            if told := order.ordered:
                warn(WARNING)
        yield answer


class ClassOrder:
    """Watches the classes that are predicted, as they come.

    A stream that goes through its classes one by one, whatever their number, changes class between neighbours far more
    seldom than the same answers in a random order: by `SHARE` of their mean at most, and `DEVIATIONS` of their standard
    deviations below it (the runs test of Wald and Wolfowitz 1940, for several classes).
    """

    def __init__(self) -> None:
        self._seen: list[int] = []
        self._next = ENOUGH

    def add(self, classes: Sequence[int]) -> None:
        self._seen += classes

    @property
    def ordered(self) -> bool:
        """Whether the answers so far come class after class; false while there are too few to tell. Looks again at
        half as many more."""
        if len(self._seen) < self._next:
            return False
        self._next = len(self._seen) * 3 // 2
        seen, rng = np.array(self._seen), np.random.default_rng(0)
        random = np.array([_changes(rng.permutation(seen)) for _ in range(SHUFFLES)])
        return bool(_changes(seen) < min(SHARE * random.mean(), random.mean() - DEVIATIONS * random.std()))


def _changes(classes: NDArray[np.int64]) -> int:
    return int((classes[1:] != classes[:-1]).sum())
