"""Two entries of one run against each other: the difference of their mean accuracy over the shifts, with its interval.

    python benchmarks/compare.py RUN_DIR ENTRY OTHER [OTHER ...]

Paired: both met the same images and shifts. 95 % percentile bootstrap over images; an image keeps its shifts.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from diffcern.report.estimates import RESAMPLES
from diffcern.report.records import load
from diffcern.report.summary import CLEAN


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("entry")
    parser.add_argument("others", nargs="+")
    options = parser.parse_args()
    run = load(options.run)
    if any(not cell.labelled.all() for cell in run.cells.values()):
        raise SystemExit("this compares right answers: the run needs labels, and classes of whole images")

    def right(entry: str) -> np.ndarray:
        """`[images, shifts]`: 1 or 0, in the order of the ids."""
        cells = [run.cells[entry, shift, severity] for shift, severity in run.conditions if shift != CLEAN]
        return np.stack([(cell.prediction == cell.target)[np.argsort(cell.ids)] for cell in cells], 1).astype(float)

    rng = np.random.default_rng(0)
    for other in options.others:
        paired = (right(options.entry) - right(other)).mean(1)
        means = paired[rng.integers(0, len(paired), (RESAMPLES, len(paired)))].mean(1)
        low, high = np.percentile(means, [2.5, 97.5])
        print(
            f"{options.entry} - {other}: {100 * paired.mean():+.1f} points [{100 * low:.1f}, {100 * high:.1f}], "
            f"{len(paired)} images x {right(other).shape[1]} shifts"
        )


if __name__ == "__main__":
    main()
