"""The report's figures of confidence: is it honest, and what is wrong among the answers that are sure?

Each as it was recorded (solid), and after a temperature that was fitted on other images (dotted, `tempered.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from diffcern.calibration import risk_coverage
from diffcern.report.drawing import MUTED, Plot, marks, new_figure, to_svg
from diffcern.report.run import Run
from diffcern.report.tempered import Answers

AFTER = (0, (1, 1.2))  # the line of what a temperature makes of it
SUREST = 0.05  # of the answers; of fewer a share says little


def reliability(run: Run, height: float, tempered: Mapping[str, Answers]) -> Plot | None:
    """Accuracy against confidence on shifted images (clean ones where nothing is shifted), in ten bins."""
    entries = [entry.name for entry in run.entries]
    errors = []
    with new_figure(height) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=MUTED, lw=0.8, ls=(0, (4, 4)))
        for entry, confidence, right in _confidences(run):
            mark = marks(entries)[entry]
            said, seen, error = _binned(confidence, right)
            axes.plot(said, seen, color=mark.placeholder, marker=mark.marker, ms=3.5, lw=1.4)
            errors.append(f"{entry} {error:.1f}")
            if entry in tempered:
                said, seen, error = _binned(*tempered[entry])
                axes.plot(said, seen, color=mark.placeholder, lw=1.0, ls=AFTER)
                errors[-1] += f" → {error:.1f}"
        axes.grid()
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.02)
        _in_percent(axes)
        axes.set_xlabel("confidence")
        axes.set_ylabel("accuracy")
        svg = to_svg(figure, "reliability", entries)
    caption = "On the dashed line, confidence is honest. Expected calibration error in points: " + ", ".join(errors)
    return Plot("Is confidence honest?", caption + _after(tempered), svg) if errors else None


def selective(run: Run, height: float, tempered: Mapping[str, Answers]) -> Plot | None:
    """The share of wrong answers among the surest, against how many are kept."""
    entries = [entry.name for entry in run.entries]
    areas = []
    with new_figure(height) as (figure, axes):
        for entry, confidence, right in _confidences(run):
            coverage, risk = risk_coverage(confidence, right)
            areas.append(f"{entry} {100 * risk.mean():.1f}")
            mark, shown = marks(entries)[entry], coverage >= SUREST
            how: Any = {"color": mark.placeholder, "marker": mark.marker, "ms": 3.5, "markevery": 0.12, "lw": 1.4}
            axes.plot(coverage[shown], risk[shown], **how)
            if entry in tempered:
                coverage, risk = risk_coverage(*tempered[entry])
                shown = coverage >= SUREST
                axes.plot(coverage[shown], risk[shown], color=mark.placeholder, lw=1.0, ls=AFTER)
                areas[-1] += f" → {100 * risk.mean():.1f}"
        axes.grid()
        axes.set_xlim(0, 1.02)
        axes.set_ylim(bottom=0)
        _in_percent(axes)
        axes.set_xlabel("answers that are kept, the surest first")
        axes.set_ylabel("wrong among them")
        svg = to_svg(figure, "selective", entries)
    caption = "To the left, only sure answers are kept (--abstain-below). Mean over all shares kept, in %: "
    caption += ", ".join(areas) + _after(tempered)
    return Plot("How often are sure answers wrong?", caption, svg) if areas else None


def _binned(confidence: NDArray[Any], right: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], float]:
    """Mean confidence and accuracy of each of ten bins, and the expected calibration error in points. A bin of fewer
    than five images is in the error alone."""
    bins = np.minimum((confidence * 10).astype(int), 9)
    size = np.bincount(bins, minlength=10)
    with np.errstate(invalid="ignore"):
        said = np.bincount(bins, confidence, 10) / size
        seen = np.bincount(bins, right, 10) / size
    enough = size >= 5
    return said[enough], seen[enough], 100 * float(np.nansum(size * np.abs(said - seen)) / size.sum())


def _after(tempered: Mapping[str, Answers]) -> str:
    """What the arrows of a caption say."""
    return " (→ and dotted: after a temperature that was fitted on other images)." if tempered else "."


def _in_percent(axes: Axes) -> None:
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))


def _confidences(run: Run) -> Iterator[tuple[str, NDArray[Any], NDArray[Any]]]:
    """Of each entry that has any: its name, and whether each answer was right, beside its confidence."""
    for entry in run.entries:
        cells = run.shifted(entry.name)
        confidence = np.concatenate([cell.confidence for cell in cells])
        right = np.concatenate([cell.prediction == cell.target for cell in cells]).astype(float)
        known = np.concatenate([cell.target >= 0 for cell in cells]) & np.isfinite(confidence)
        if known.any():
            yield entry.name, confidence[known], right[known]
