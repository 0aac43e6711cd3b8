"""The order of a stream: a random one, and whether it comes class after class, where what adapts along it forgets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from diffcern.data import Dataset, Subset, UnreadableImage
from diffcern.rng import generator
from diffcern.run.predict import Answer

WINDOW = 16  # neighbours, that classes are counted in
ENOUGH = 4  # windows, before anything is said
SHARE = 0.5  # of the entropy that the same answers have in a random order


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

    mean_w H(classes within w) is small beside that of the same answers in a random order where a stream goes through
    its classes one by one, whatever their number.
    """

    def __init__(self) -> None:
        self._seen: list[int] = []

    def add(self, classes: Sequence[int]) -> None:
        self._seen += classes

    @property
    def ordered(self) -> bool:
        """Whether the answers so far come class after class; false while there are too few to tell."""
        if len(self._seen) < ENOUGH * WINDOW or len(self._seen) % WINDOW or len(set(self._seen)) < 3:
            return False
        shuffled = np.random.default_rng(0).permutation(self._seen).tolist()
        return _within(self._seen) < SHARE * _within(shuffled)


def _within(classes: Sequence[int]) -> float:
    """The mean entropy of the classes in windows, in nats."""
    windows = [classes[first : first + WINDOW] for first in range(0, len(classes) - WINDOW + 1, WINDOW)]
    return sum(_entropy(Counter(window)) for window in windows) / len(windows)


def _entropy(counts: Counter[int]) -> float:
    p = np.array(list(counts.values())) / counts.total()
    return float(-(p * np.log(p)).sum())
