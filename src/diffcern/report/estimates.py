"""From statistics of images to metrics with intervals: every cell's own, and its change since source.

Intervals are percentiles of a bootstrap over images (Efron 1979): image ids are resampled and an image keeps all its
shifts, because answers on one image under several shifts are not independent. A metric is that of the sums over the
resampled images, so that a mean IoU is one of pixels, not of images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffcern.kinds import Kind
from diffcern.metrics import Metric
from diffcern.report.run import Run

Array = NDArray[Any]
RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A metric of each condition: values `[C]`, draws `[R, C]` of resampled images; NaN without images."""

    values: Array
    draws: Array

    def over(self, columns: Sequence[int]) -> tuple[float, float, float] | None:
        """Mean over the columns that have images, with its 95 % interval; None where none has."""
        columns = [c for c in columns if np.isfinite(self.values[c])]
        if not columns:
            return None
        low, high = np.nanpercentile(_nanmean(self.draws[:, columns]), [2.5, 97.5])
        return float(np.mean(self.values[columns])), float(low), float(high)


def estimates(run: Run, source: str) -> tuple[dict[tuple[str, str], Estimate], dict[tuple[str, str], Estimate]]:
    """By (metric's name, entry): the metrics themselves, and their changes since `source` on the images that both
    answered, where there is such an entry. Both are empty where no truth is known at all."""
    tables = _statistics(run)
    if not next(iter(tables.values())).shape[-1]:
        return {}, {}
    pairs = {entry: _shared(table, tables[source]) for entry, table in tables.items() if source in tables}
    pairs.pop(source, None)
    own = {entry: [_own(run.kind, _sums(None, table))] for entry, table in tables.items()}
    change = {entry: [_change(run.kind, *(_sums(None, t) for t in pair))] for entry, pair in pairs.items()}
    for weights in _resamples(next(iter(tables.values())).shape[0]):
        found = {entry: _sums(weights, table) for entry, table in tables.items()}
        for entry, sums in found.items():
            own[entry].append(_own(run.kind, sums))
        for entry, (mine, others) in pairs.items():
            a = found[entry] if mine is tables[entry] else _sums(weights, mine)
            b = found[source] if others is tables[source] else _sums(weights, others)
            change[entry].append(_change(run.kind, a, b))
    metrics = run.kind.metrics
    return _by_metric(metrics, own), _by_metric(metrics, change)


def _statistics(run: Run) -> dict[str, Array]:
    """For each entry `[N, C, S]`, NaN where an image has no answer or no truth.

    Sums of whole numbers are exact in float32, so accuracies do not depend on the linear algebra library.
    """
    conditions = {condition: c for c, condition in enumerate(run.conditions)}
    ids = np.array(sorted(set().union(*(cell.ids for cell in run.cells.values()))), dtype=object)
    shape = len(ids), len(conditions), max(cell.statistics.shape[1] for cell in run.cells.values())
    dtype = np.float64 if run.kind.dense else np.float32
    tables = {entry.name: np.full(shape, np.nan, dtype) for entry in run.entries}
    for (entry, shift, severity), cell in run.cells.items():
        if len(cell.ids):
            tables[entry][np.searchsorted(ids, cell.ids), conditions[shift, severity]] = cell.statistics
    return tables


def _shared(table: Array, other: Array) -> tuple[Array, Array]:
    """Both tables with NaN where either has it; the same objects where that changes nothing."""
    here, there = np.isfinite(table), np.isfinite(other)
    both = here & there
    return (
        table if (both == here).all() else np.where(both, table, np.nan),
        other if (both == there).all() else np.where(both, other, np.nan),
    )


def _resamples(n: int) -> Iterator[Array]:
    """How often each of n images is drawn, `[rows, n]`, `RESAMPLES` rows in all."""
    rng = np.random.default_rng(0)
    block = max(1, 4_000_000 // n)  # bounds memory, whatever the number of images
    for start in range(0, RESAMPLES, block):
        rows = min(block, RESAMPLES - start)
        picks = rng.integers(0, n, (rows, n)) + n * np.arange(rows)[:, None]
        yield np.bincount(picks.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float32)


def _sums(weights: Array | None, table: Array) -> Array:
    """`[R, C, S]`, weighted sums over the images of `[N, C, S]`; without weights plain ones, `[1, C, S]`."""
    if weights is None:
        return np.nansum(table, axis=0, keepdims=True)
    flat = np.nan_to_num(table, nan=0.0).reshape(len(table), -1)
    return (weights @ flat).astype(float).reshape(len(weights), *table.shape[1:])


def _own(kind: Kind, sums: Array) -> Array:
    """Every metric of the sums, `[M, R, C]`."""
    return np.stack([metric.of(sums) for metric in kind.metrics])


def _change(kind: Kind, sums: Array, others: Array) -> Array:
    """Every metric of `sums` less that of `others`, of the same images."""
    if kind.averages:  # a mean of differences is exact where a difference of means is rounded
        return _own(kind, np.concatenate([sums[..., :-1] - others[..., :-1], sums[..., -1:]], -1))
    return _own(kind, sums) - _own(kind, others)


def _by_metric(metrics: Sequence[Metric], found: dict[str, list[Array]]) -> dict[tuple[str, str], Estimate]:
    """found: for each entry `[M, 1, C]`, then the resamples' `[M, rows, C]`."""
    result = {}
    for entry, (values, *blocks) in found.items():
        draws = np.concatenate(blocks, axis=1)
        for m, metric in enumerate(metrics):
            result[metric.name, entry] = Estimate(values[m, 0], draws[m])
    return result


def _nanmean(values: Array) -> Array:
    """Mean over the last axis, NaN (without a warning) where a resample holds no image of any column."""
    present = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(present, values, 0).sum(-1) / present.sum(-1)
