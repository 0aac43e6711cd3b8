"""Two entries of one run against each other: the difference of every metric, mean over the shifts, with its interval.

    python benchmarks/compare.py RUN_DIR ENTRY OTHER [OTHER ...] [--shift NAME] [--of OTHER_RUN_DIR]

Paired: both met the same images and shifts. --of: the others are entries of another run. 95 % percentile bootstrap over
images; an image keeps its shifts. Of classes also how many answers differ, and by how much the largest class
probability does in the mean.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from diffcern.kinds import KINDS
from diffcern.report.estimates import estimates
from diffcern.report.records import load
from diffcern.report.run import Run
from diffcern.report.summary import CLEAN


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("entry")
    parser.add_argument("others", nargs="+")
    parser.add_argument("--shift", help="one of the run's, in the place of their mean")
    parser.add_argument("--of", type=Path, help="the run that the others are entries of")
    options = parser.parse_args()
    run = load(options.run)
    others = options.others
    if options.of:
        run, others = beside(run, load(options.of), options.of.name), [f"{options.of.name}/{n}" for n in others]
    for other in others:
        print(f"{options.entry} - {other}: {difference(run, options.entry, other, options.shift)}")


def beside(run: Run, other: Run, name: str) -> Run:
    """The run with the entries of another one, of the same images under the same shifts, as `NAME/ENTRY`."""
    one, two = ({(c[1:], *cell.ids) for c, cell in each.cells.items()} for each in (run, other))
    if one != two:
        raise SystemExit("the two runs are not of the same images under the same shifts, or one is not complete")
    entries = [replace(entry, name=f"{name}/{entry.name}") for entry in other.entries]
    cells = {(f"{name}/{entry}", *condition): cell for (entry, *condition), cell in other.cells.items()}
    return replace(run, entries=[*run.entries, *entries], cells={**run.cells, **cells})


def difference(run: Run, entry: str, other: str, shift: str | None = None) -> str:
    """Of every metric of the run's task: the mean over its shifts, or under one of them, in words."""
    pair = [known for known in run.entries if known.name in (entry, other)]
    if len(pair) < 2:
        raise SystemExit(f"{entry} and {other}: two entries of {', '.join(known.name for known in run.entries)}")
    cells = {key: cell for key, cell in run.cells.items() if key[0] in (entry, other)}
    changes = estimates(replace(run, entries=pair, cells=cells), other)[1]
    shifts = [c for c, (name, _) in enumerate(run.conditions) if (name == shift if shift else name != CLEAN)]
    images = max(len(cell.ids) for cell in cells.values())
    parts = []
    for metric in KINDS[run.task].metrics:
        change = changes[metric.name, entry].over(shifts) if (metric.name, entry) in changes else None
        if change is None:
            raise SystemExit("nothing to compare: no truth is known in this run")
        value, low, high = (100 * number if metric.unit == "%" else number for number in change)
        digits, unit = (1, "points") if metric.unit == "%" else (3, metric.unit)
        interval = f"[{low:.{digits}f}, {high:.{digits}f}]"
        parts.append(" ".join(filter(None, (metric.title, f"{value:+.{digits}f}", unit, interval))))
    over = f"{images} images x {shift or f'{len(shifts)} shifts'}"
    return f"{', '.join(parts)}; {over}{'' if shift else answers(run, entry, other)}"


def answers(run: Run, entry: str, other: str) -> str:
    """How far apart the answers themselves are, over the shifts; "" for maps."""
    shifts = [c for c in run.conditions if c[0] != CLEAN and {(entry, *c), (other, *c)} <= run.cells.keys()]
    if run.task != "classification" or not shifts:
        return ""
    others, apart = [], []
    for condition in shifts:
        one, two = run.cells[entry, *condition], run.cells[other, *condition]
        _, i, k = np.intersect1d(one.ids, two.ids, return_indices=True)
        others.extend(one.prediction[i] != two.prediction[k])
        apart.extend(abs(one.confidence[i] - two.confidence[k]))
    return f"; {sum(others)} of {len(others)} answers differ, confidence by {np.mean(apart):.4f}"


if __name__ == "__main__":
    main()
