"""Question answering under several shifts: source, purification and SDA, from the files of `diffcern answer`.

    for shift in gaussian_noise fog; do for method in dda sda; do
        diffcern answer embedded:scenes ... --method $method --shift $shift --severity 5 \
            --out runs/answers/$method/$shift.parquet
    done; done
    python benchmarks/answers.py runs/answers/dda runs/answers/sda

Each folder is a method, each file in it a shift; every folder has the same shifts, of the same questions and the same
source. `source` is the answer to the image as given, METHOD that of both answers together, METHOD-alone that to the
purified image. 95 % intervals: Wilson of a cell; of means and differences a percentile bootstrap over questions, which
keep their shifts.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from diffcern.report.estimates import RESAMPLES
from diffcern.report.run import shift_rank
from diffcern.report.summary import CLEAN, SOURCE, wilson

Array = NDArray[Any]
Rows = list[dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--kinds", nargs="+", help="only questions of these kinds")
    options = parser.parse_args()
    folders = options.methods
    names = [folder.resolve().name for folder in folders]
    shifts, kinds, right = read(folders)
    if options.kinds:
        own = np.isin(kinds, options.kinds)
        if not own.any():
            raise SystemExit(f"no question is of {', '.join(options.kinds)}: there are {', '.join(sorted({*kinds}))}")
        kinds, right = kinds[own], {name: hits[own] for name, hits in right.items()}
    print("\n".join(table(shifts, right)))
    columns = [c for c, shift in enumerate(shifts) if shift != CLEAN]
    means = {name: hits[:, columns].mean(1) for name, hits in right.items()}
    print(f"\n{len(kinds)} questions x {len(columns)} shifts; mean over the shifts, by kind of question:\n")
    print("\n".join(by_kind(kinds, means)))
    for one, other in [(name, SOURCE) for name in names] + [(b, a) for a, b in pairwise(names)]:
        value, low, high = mean_interval(means[one] - means[other])
        print(f"{one} - {other}: {value:+.1f} points [{low:.1f}, {high:.1f}]")


def read(folders: Sequence[Path]) -> tuple[list[str], Array, dict[str, Array]]:
    """The shifts, the kind of each question `[N]`, and by column of the table what was answered right `[N, S]`."""
    names = [folder.resolve().name for folder in folders]
    if len({*names, SOURCE}) <= len(names):
        raise SystemExit(f"the folders name the methods: they differ, and none is {SOURCE!r}")
    found = [{path.stem for path in folder.glob("*.parquet")} for folder in folders]
    if any(stems != found[0] for stems in found) or not found[0] - {CLEAN}:
        raise SystemExit("every folder holds SHIFT.parquet of `diffcern answer --prior P --out` for the same shifts")
    shifts = sorted(found[0], key=shift_rank)
    right: dict[str, list[Array]] = {SOURCE: []}
    first: dict[str, Rows] = {}
    for folder, name in zip(folders, names, strict=True):
        for shift in shifts:
            rows = answered(folder / f"{shift}.parquet")
            check_same(rows, first.setdefault(shift, rows), asked=False, path=folder / shift)
            check_same(rows, first[shifts[0]], asked=True, path=folder / shift)
            columns = {"after": name, "purified": f"{name}-alone"} | ({"before": SOURCE} if name == names[0] else {})
            for branch, column in columns.items():
                hits = np.array([row[branch] == row["truth"] for row in rows], float)
                right.setdefault(column, []).append(hits)
    kinds = np.array([row["kind"] for row in first[shifts[0]]])
    return shifts, kinds, {name: np.stack(hits, 1) for name, hits in right.items()}


def answered(path: Path) -> Rows:
    """The rows of a file by id, without those that were skipped."""
    rows = [row for row in pq.read_table(path).sort_by("id").to_pylist() if not row["error"]]
    if not rows or "after" not in rows[0]:
        raise SystemExit(f"{path} holds no answers after purification: make it with --prior")
    return rows


def check_same(rows: Rows, other: Rows, *, asked: bool, path: Path) -> None:
    """Stops unless both ask the same, or where it is not about that, have the same answers before purification."""
    keys = ("id", "kind", "question", "truth") if asked else ("id", "before")
    if [[row[key] for key in keys] for row in rows] != [[row[key] for key in keys] for row in other]:
        what = "other questions" if asked else "another source"
        raise SystemExit(f"{path}.parquet is of {what} than the first folder's")


def table(shifts: Sequence[str], right: dict[str, Array]) -> list[str]:
    """Accuracy in %, a row for each shift and for their mean."""
    lines = [f"| shift | {' | '.join(right)} |", f"| --- |{' ---: |' * len(right)}"]
    for c, shift in enumerate(shifts):
        cells = []
        for hits in right.values():
            low, high = wilson(int(hits[:, c].sum()), len(hits))
            cells.append(f"{100 * hits[:, c].mean():.1f} {100 * low:.0f}–{100 * high:.0f}")
        lines.append(f"| {shift} | {' | '.join(cells)} |")
    columns = [c for c, shift in enumerate(shifts) if shift != CLEAN]
    means = [mean_interval(hits[:, columns].mean(1)) for hits in right.values()]
    return [*lines, f"| mean | {' | '.join(f'{value:.1f} {low:.0f}–{high:.0f}' for value, low, high in means)} |"]


def by_kind(kinds: Array, means: dict[str, Array]) -> list[str]:
    """Mean accuracy over the shifts in %, a row for each kind of question."""
    lines = [f"| questions | N | {' | '.join(means)} |", f"| --- | ---: |{' ---: |' * len(means)}"]
    for kind in dict.fromkeys(sorted(kinds)):
        own = kinds == kind
        cells = [mean_interval(values[own]) for values in means.values()]
        shown = " | ".join(f"{value:.1f} {low:.0f}–{high:.0f}" for value, low, high in cells)
        lines.append(f"| {kind} | {own.sum()} | {shown} |")
    return lines


def mean_interval(values: Array) -> tuple[float, float, float]:
    """The mean over questions `[N]` in %, and its interval."""
    draws = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.percentile(values[draws].mean(1), [2.5, 97.5])
    return 100 * float(values.mean()), 100 * float(low), 100 * float(high)


if __name__ == "__main__":
    main()
