"""From records to numbers: accuracy with intervals, paired differences to source, and cost.

Intervals are 95 %. An accuracy in one cell carries Wilson's score interval (Wilson 1927). Means over several
cells and all differences carry percentile bootstrap intervals over images (Efron 1979): image ids are
resampled and an image keeps all its shifts, because answers on one image under several shifts are not
independent.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffcern.report.records import Cell, Entry, Run, load

SOURCE = "source"  # the entry that every other one is compared with
CLEAN = "clean"
MEAN = "mean"
RESAMPLES = 2000
Z95 = 1.959963984540054  # the normal distribution's 97.5 % point


def summarise(run_dir: str | Path) -> list[dict[str, Any]]:
    """One object for each entry x shift x severity, then one mean over the shifts for each entry.

    With several severities, each entry also has one object per shift with severity null: the mean over them.
    `n` counts the labelled images an accuracy rests on; without any, the keys metric, value, ci_low and
    ci_high are absent and n counts images. `planned` is how many images there were to be, `skipped` the reason by
    id of those that could not be read; `complete` is false where others are missing (a cell that was not
    reached has n = 0). A folder without a plan is complete where all entries of a shift met the same images.
    """
    return summarise_run(load(run_dir))


def write_summary(run_dir: str | Path) -> list[dict[str, Any]]:
    """`summarise`, and the result written to `summary.json` in the run folder."""
    rows = summarise(run_dir)
    save_summary(rows, Path(run_dir))
    return rows


def save_summary(rows: list[dict[str, Any]], run_dir: Path) -> Path:
    text = json.dumps(rows, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    return write_atomically(run_dir / "summary.json", text)


def write_atomically(file: Path, text: str) -> Path:
    """Write so that a reader finds the old file or the new one, never half of one."""
    temporary = file.with_name(f".{file.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    return temporary.replace(file)


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a proportion."""
    p, z2 = successes / n, Z95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def summarise_run(run: Run) -> list[dict[str, Any]]:
    """As `summarise`, of a run already in memory."""
    conditions = run.conditions
    correct = _correct(run)  # entry -> [C, N]
    source = correct.get(SOURCE)
    differences = {
        entry.name: correct[entry.name] - source for entry in run.entries if source is not None and entry.name != SOURCE
    }
    names = [*correct, *(f"-{name}" for name in differences)]  # "-x": x minus source
    stack = np.concatenate([*correct.values(), *differences.values()])
    resampled = _bootstrap(stack).reshape(RESAMPLES, len(names), len(conditions))
    draws = {name: resampled[:, i] for i, name in enumerate(names)}  # [R, C]

    def estimate(prefix: str, name: str, columns: list[int]) -> tuple[float, float, float] | None:
        """Mean over the columns that have images, with its bootstrap interval."""
        values = (differences if prefix else correct).get(name)
        if values is None:
            return None
        columns = [c for c in columns if np.isfinite(values[c]).any()]
        if not columns:
            return None
        value = float(np.mean([np.nanmean(values[c]) for c in columns]))
        low, high = np.nanpercentile(_nanmean(draws[prefix + name][:, columns]), [2.5, 97.5])
        return value, float(low), float(high)

    met = {c: set().union(*([*cell.ids, *cell.skipped] for cell in _column(run, c))) for c in conditions}
    planned = [run.images or len(met[c]) for c in conditions]

    def row(entry: Entry, shift: str, severity: int | None, columns: list[int]) -> dict[str, Any]:
        cells = [run.cells[entry.name, *conditions[c]] for c in columns]
        return {
            "entry": entry.name,
            "method": entry.method,
            "protocol": entry.protocol,
            "batch_size": entry.batch_size,
            "needs_batch": entry.needs_batch,
            "dataset": run.dataset,
            "shift": shift,
            "severity": severity,
            **_accuracy(cells, estimate("", entry.name, columns)),
            "planned": max(planned[c] for c in columns),
            "skipped": {id: reason for cell in cells for id, reason in cell.skipped.items()},
            "complete": all(
                len(cell.ids) + len(cell.skipped) >= planned[c] for cell, c in zip(cells, columns, strict=True)
            ),
            **dict(
                zip(
                    ("difference_to_source", "difference_low", "difference_high"),
                    estimate("-", entry.name, columns) or (None, None, None),
                    strict=True,
                )
            ),
            **_cost(cells),
        }

    return [row(entry, *group) for entry in run.entries for group in _groups(conditions)]


def _groups(conditions: list[tuple[str, int]]) -> Iterator[tuple[str, int | None, list[int]]]:
    """(shift, severity, columns) of an entry's objects: cells, means over severities, mean over shifts."""
    by_shift: dict[str, list[int]] = {}
    for c, (shift, severity) in enumerate(conditions):
        yield shift, severity, [c]
        by_shift.setdefault(shift, []).append(c)
    for shift, columns in by_shift.items():
        if len(columns) > 1:
            yield shift, None, columns
    if shifted := [c for c, (shift, _) in enumerate(conditions) if shift != CLEAN]:
        yield MEAN, None, shifted


def _correct(run: Run) -> dict[str, NDArray[Any]]:
    """For each entry `[C, N]`: 1 right, 0 wrong, NaN where the image has no answer or no target."""
    conditions = {condition: c for c, condition in enumerate(run.conditions)}
    ids = np.array(sorted(set().union(*(cell.ids for cell in run.cells.values()))), dtype=object)
    correct = {entry.name: np.full((len(conditions), len(ids)), np.nan, dtype=np.float32) for entry in run.entries}
    for (entry, shift, severity), cell in run.cells.items():
        right = np.where(cell.target >= 0, cell.prediction == cell.target, np.nan)
        correct[entry][conditions[shift, severity], np.searchsorted(ids, cell.ids)] = right
    return correct


def _bootstrap(values: NDArray[Any]) -> NDArray[Any]:
    """`[R, M]`: the mean of every row of `values [M, N]` over resampled images, the same ones for all rows.

    Sums of whole numbers are exact in float32, so results do not depend on the linear algebra library.
    """
    n = values.shape[1]
    rng = np.random.default_rng(0)
    present = np.isfinite(values).astype(np.float32)
    filled = np.nan_to_num(values, nan=0.0)
    block = max(1, 4_000_000 // n)  # bounds memory, whatever the number of images
    means = []
    for start in range(0, RESAMPLES, block):
        rows = min(block, RESAMPLES - start)
        picks = rng.integers(0, n, (rows, n)) + n * np.arange(rows)[:, None]
        weights = np.bincount(picks.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float32)
        with np.errstate(invalid="ignore"):
            means.append((weights @ filled.T).astype(float) / (weights @ present.T))
    return np.concatenate(means)


def _nanmean(values: NDArray[Any]) -> NDArray[Any]:
    """Mean over the last axis, NaN (without a warning) where a resample holds no image of any column."""
    present = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(present, values, 0).sum(-1) / present.sum(-1)


def _accuracy(cells: list[Cell], estimate: tuple[float, float, float] | None) -> dict[str, Any]:
    if estimate is None:
        return {"n": len(set().union(*(cell.ids for cell in cells)))}
    value, low, high = estimate
    labelled = set().union(*(cell.ids[cell.target >= 0] for cell in cells))
    if len(cells) == 1:
        known = cells[0].target >= 0
        successes = int((cells[0].prediction == cells[0].target)[known].sum())
        value, (low, high) = successes / len(labelled), wilson(successes, len(labelled))
    return {"metric": "accuracy", "value": value, "ci_low": low, "ci_high": high, "n": len(labelled)}


def _cost(cells: list[Cell]) -> dict[str, float | None]:
    """Means over the images of the cells; the peak is the largest of any. None where nothing was measured."""

    def over(measure: Callable[[NDArray[Any]], Any], name: str) -> float | None:
        values = np.concatenate([getattr(cell, name) for cell in cells])
        return float(measure(values)) if len(values) else None

    return {
        "seconds_per_image": over(np.mean, "seconds"),
        "nfe_forward": over(np.mean, "nfe_forward"),
        "nfe_backward": over(np.mean, "nfe_backward"),
        "peak_memory_mb": over(np.max, "memory"),
    }


def _column(run: Run, condition: tuple[str, int]) -> list[Cell]:
    return [cell for key, cell in run.cells.items() if key[1:] == condition]
