"""From records to numbers: the task's metrics with intervals, paired differences to source, and cost.

Intervals are 95 %. An accuracy in one cell carries Wilson's score interval (Wilson 1927). Everything else (other
metrics, means over several cells, differences) carries a percentile bootstrap interval over images, see `estimates`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffcern.files import write_whole
from diffcern.kinds import KINDS
from diffcern.metrics import wilson
from diffcern.report.estimates import estimates
from diffcern.report.records import load
from diffcern.report.run import Cell, ReportedEntry, Run

SOURCE = "source"  # the entry that every other one is compared with
CLEAN = "clean"
MEAN = "mean"


def summarise(run_dir: str | Path) -> list[dict[str, Any]]:
    """One object for each entry x shift x severity, then one mean over the shifts for each entry.

    With several severities, each entry also has one object per shift with severity null: the mean over them. All of
    them are of the task's first metric; the same objects of its other metrics follow (their differences in the unit of
    the metric, so that a fall may be what is better).
    `n` counts the labelled images a value rests on; without any, the keys metric, value, ci_low and
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
    write_whole(run_dir / "summary.json", text.encode())
    return run_dir / "summary.json"


def summarise_run(run: Run) -> list[dict[str, Any]]:
    """As `summarise`, of a run already in memory."""
    conditions = run.conditions
    own, changes = estimates(run, SOURCE)
    met = {c: set().union(*([*cell.ids, *cell.skipped] for cell in _column(run, c))) for c in conditions}
    planned = [run.images or len(met[c]) for c in conditions]

    def row(metric: str, entry: ReportedEntry, shift: str, severity: int | None, columns: list[int]) -> dict[str, Any]:
        cells = [run.cells[entry.name, *conditions[c]] for c in columns]
        value, change = (known.get((metric, entry.name)) for known in (own, changes))
        difference = change.over(columns) if change else None
        return {
            "entry": entry.name,
            "method": entry.method,
            "protocol": entry.protocol,
            "batch_size": entry.batch_size,
            "needs_batch": entry.needs_batch,
            "dataset": run.dataset,
            "shift": shift,
            "severity": severity,
            **_value(metric, cells, value.over(columns) if value else None),
            "planned": max(planned[c] for c in columns),
            "skipped": {id: reason for cell in cells for id, reason in cell.skipped.items()},
            "complete": all(
                len(cell.ids) + len(cell.skipped) >= planned[c] for cell, c in zip(cells, columns, strict=True)
            ),
            **dict(
                zip(
                    ("difference_to_source", "difference_low", "difference_high"),
                    difference or (None, None, None),
                    strict=True,
                )
            ),
            **_cost(cells),
        }

    first, *others = [metric.name for metric in run.kind.metrics]
    groups = [(entry, *group) for entry in run.entries for group in _groups(conditions)]
    rest = [row(metric, *group) for metric in others for group in groups]
    return [row(first, *group) for group in groups] + [row for row in rest if "value" in row]


def main_rows(summary: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The objects of the task's first metric, which tables and plots show, and those without any."""
    return [row for row in summary if row.get("metric") in (None, *(kind.metrics[0].name for kind in KINDS.values()))]


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


def _value(metric: str, cells: list[Cell], estimate: tuple[float, float, float] | None) -> dict[str, Any]:
    if estimate is None:
        return {"n": len(set().union(*(cell.ids for cell in cells)))}
    value, low, high = estimate
    labelled = set().union(*(cell.ids[cell.labelled] for cell in cells))
    if metric == "accuracy" and len(cells) == 1:
        successes = int(cells[0].statistics[cells[0].labelled, 0].sum())
        value, (low, high) = successes / len(labelled), wilson(successes, len(labelled))
    return {"metric": metric, "value": value, "ci_low": low, "ci_high": high, "n": len(labelled)}


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
