"""What answers are measured by: a metric is a function of sums over images of each image's statistics.

A record holds its image's statistics; sums over any choice of images (a cell, a bootstrap resample) give the metric,
so that a ratio such as the mean IoU is that of the whole choice, not a mean of ratios. Knows nothing of models.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Z95 = 1.959963984540054  # the normal distribution's 97.5 % point


@dataclass(frozen=True)
class Metric:
    """of: sums of statistics `[..., S]` -> values `[...]`, NaN where there is nothing to measure.

    unit: "%" for fractions in [0, 1], else of the value itself. better: "higher" or "lower".
    """

    name: str
    title: str
    of: Callable[[Array], Array]
    unit: str = "%"
    better: str = "higher"


def accuracy(sums: Array) -> Array:
    """Statistics: right, labelled."""
    return _ratio(sums[..., 0], sums[..., 1])


def _areas(sums: Array) -> tuple[Array, Array, Array]:
    """Pixels per class `[..., K]`: where answer and truth agree, of the answer, of the truth."""
    together, answered, true = np.split(sums, 3, axis=-1)
    return together, answered, true


def mean_iou(sums: Array) -> Array:
    """Intersection over union, mean over the classes that truth or answer contain."""
    together, answered, true = _areas(sums)
    return _mean(_ratio(together, answered + true - together))


def mean_class_accuracy(sums: Array) -> Array:
    """Share of a class's pixels that are found, mean over the classes that the truth contains."""
    together, _, true = _areas(sums)
    return _mean(_ratio(together, true))


def pixel_accuracy(sums: Array) -> Array:
    together, _, true = _areas(sums)
    return _ratio(together.sum(-1), true.sum(-1))


def per_image(index: int) -> Callable[[Array], Array]:
    """The mean over images of one of an image's own measures; the last statistic counts the images."""
    return lambda sums: _ratio(sums[..., index], sums[..., -1])


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a proportion (Wilson 1927)."""
    p, z2 = successes / n, Z95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def _ratio(above: Array, below: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(below > 0, above / below, np.nan)


def _mean(values: Array) -> Array:
    """Over the last axis, of those that are not NaN."""
    known = np.isfinite(values)
    return _ratio(np.where(known, values, 0).sum(-1), known.sum(-1))
