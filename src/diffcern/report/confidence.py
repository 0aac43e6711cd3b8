"""The report's figures of confidence: is it honest, and what is wrong among the answers that are sure?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from diffcern.calibration import risk_coverage
from diffcern.report.drawing import MUTED, Plot, marks, new_figure, to_svg
from diffcern.report.run import Run

SUREST = 0.05  # of the answers; of fewer a share says little


def reliability(run: Run, height: float) -> Plot | None:
    """Accuracy against confidence on shifted images (clean ones where nothing is shifted), in ten bins."""
    entries = [entry.name for entry in run.entries]
    errors = []
    with new_figure(height) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=MUTED, lw=0.8, ls=(0, (4, 4)))
        for entry, confidence, right in _confidences(run):
            bins = np.minimum((confidence * 10).astype(int), 9)
            size = np.bincount(bins, minlength=10)
            with np.errstate(invalid="ignore"):
                said = np.bincount(bins, confidence, 10) / size
                seen = np.bincount(bins, right, 10) / size
            errors.append(f"{entry} {100 * np.nansum(size * np.abs(said - seen)) / size.sum():.1f}")
            mark, enough = marks(entries)[entry], size >= 5  # a bin of four images is noise
            axes.plot(said[enough], seen[enough], color=mark.placeholder, marker=mark.marker, ms=3.5, lw=1.4)
        axes.grid()
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.02)
        _in_percent(axes)
        axes.set_xlabel("confidence")
        axes.set_ylabel("accuracy")
        svg = to_svg(figure, "reliability", entries)
    caption = "On the dashed line, confidence is honest. Expected calibration error in points: "
    return Plot("Is confidence honest?", caption + ", ".join(errors) + ".", svg) if errors else None


def selective(run: Run, height: float) -> Plot | None:
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
        axes.grid()
        axes.set_xlim(0, 1.02)
        axes.set_ylim(bottom=0)
        _in_percent(axes)
        axes.set_xlabel("answers that are kept, the surest first")
        axes.set_ylabel("wrong among them")
        svg = to_svg(figure, "selective", entries)
    caption = "To the left, only sure answers are kept (--abstain-below). Mean over all shares kept, in %: "
    return Plot("How often are sure answers wrong?", caption + ", ".join(areas) + ".", svg) if areas else None


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
