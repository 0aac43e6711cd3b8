"""Effective robustness: shifted accuracy above what predictors of the same in-distribution accuracy reach.

    python benchmarks/effective_robustness.py RUN [RUN ...] --out FOLDER

    rho(f) = acc_shifted(f) - sigmoid(a logit acc_clean(f) + b)        a, b: least squares over the predictors

Taori et al. 2020 (arXiv 2007.00644), Miller et al. 2021 (arXiv 2107.04649). Entries of the method `source` are the
predictors of the line (three or more, over all runs); every other entry is judged against it, and a predictor's own
rho is its residual. The line is fitted to each shift, and to the mean accuracy over all of them. In logits, and only
there, 0 and n right answers of n count as 0.5 / (n + 1) and (n + 0.5) / (n + 1).

95 % intervals: Wilson for an accuracy under one condition, else a paired bootstrap over images: all accuracies are
those of the resampled images, and the line is fitted again. They hold for these predictors; how much others would
differ, their scatter about the line says.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text
from scipy import special

from diffcern.errors import DiffcernError, UsageError
from diffcern.report.estimates import RESAMPLES
from diffcern.report.records import load
from diffcern.report.run import Run
from diffcern.report.summary import CLEAN, MEAN, SOURCE, wilson

Array = NDArray[Any]
Interval = tuple[float, float, float]  # value, low, high
LEAST = 3  # predictors: two points are on every line
BEYOND = "*"  # marks a value at which the line is extrapolated
GREY, MARKERS = "0.45", "sD^vPX"


@dataclass(frozen=True)
class Answers:
    """Who was right: right `[models, images, conditions]`, 1 or 0, on the images that all of them answered.

    names: of the models, a predictor under its run folder's. predictors `[models]`: which ones the line is fitted to.
    conditions: (shift, severity), clean first. met: how many images there are, those that some model lacks included.
    """

    names: list[str]
    predictors: Array
    conditions: list[tuple[str, int]]
    right: Array
    dataset: str
    met: int


@dataclass(frozen=True)
class Judged:
    """One shift: accuracies, the line and rho, `[1 + resamples, models]`; row 0 is of the images as they are.

    slope, intercept: `[1 + resamples]`. n: images. columns: how many conditions `shifted` is the mean over.
    """

    shift: str
    n: int
    columns: int
    clean: Array
    shifted: Array
    slope: Array
    intercept: Array

    @property
    def line(self) -> Array:
        return special.expit(self.slope[:, None] * logit(self.clean, self.n) + self.intercept[:, None])

    @property
    def rho(self) -> Array:
        return self.shifted - self.line

    def scatter(self, predictors: Array) -> float:
        """Standard deviation of the predictors about their line, of which intervals over images know nothing."""
        residuals = self.rho[0, predictors]
        return float(np.sqrt((residuals**2).sum() / (len(residuals) - 2)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a folder that `diffcern bench` wrote")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    try:
        answers = read_answers([load(folder) for folder in options.runs])
        shifts = judge(answers)
    except DiffcernError as error:
        raise SystemExit(f"error: {error}") from error
    rows = [row for shift in shifts for row in rows_of(shift, answers)]
    print_rows(rows, answers)
    options.out.mkdir(parents=True, exist_ok=True)
    found = {"dataset": answers.dataset, "images": answers.right.shape[1], "resamples": RESAMPLES, "rows": rows}
    (options.out / "effective-robustness.json").write_text(json.dumps(found, indent=1) + "\n")
    plot(shifts, rows).savefig(options.out / "effective-robustness.png", dpi=150)


def read_answers(runs: Sequence[Run]) -> Answers:
    """The answers of all entries of the runs. Raises UsageError for runs that cannot be compared."""
    entries = [(run, entry) for run in runs for entry in run.entries]
    short = [run.path.resolve().name if entry.method == SOURCE else entry.name for run, entry in entries]
    several = {name for name, count in Counter(short).items() if count > 1}
    full = [f"{run.path}: {entry.name}" for run, entry in entries]
    names = [long if name in several else name for name, long in zip(short, full, strict=True)]
    if len(set(names)) < len(names):
        raise UsageError("a run folder is named twice")
    conditions = runs[0].conditions
    for run in runs:
        if run.task != "classification":
            raise UsageError(f"{run.path} is of {run.task}: this compares accuracies of classification")
        if (run.dataset, run.conditions) != (runs[0].dataset, conditions):
            raise UsageError(f"{run.path} and {runs[0].path} are not of the same data set, shifts and severities")
    if len(conditions) < 2 or conditions[0][0] != CLEAN:
        raise UsageError(f"the runs need the shift {CLEAN!r} for the accuracy in distribution, and another one")
    cells = [[run.cells[entry.name, *condition] for condition in conditions] for run, entry in entries]
    answered = [set(cell.ids[cell.labelled]) for row in cells for cell in row]
    ids = np.array(sorted(set.intersection(*answered)), dtype=object)
    if not len(ids):
        raise UsageError("there is no image that all entries answered under all shifts: finish the runs first")
    right = [np.stack([cell.statistics[np.searchsorted(cell.ids, ids), 0] for cell in row], 1) for row in cells]
    predictors = np.array([entry.method == SOURCE for _, entry in entries])
    seen: dict[bytes, str] = {}
    for name, answers in ((names[i], right[i].tobytes()) for i in np.flatnonzero(predictors)):
        if answers in seen:  # a bench of the prior names a predictor too, whose entry `source` would count twice
            raise UsageError(f"{seen[answers]} and {name} have every answer alike: name each predictor once")
        seen[answers] = name
    return Answers(names, predictors, conditions, np.stack(right), runs[0].dataset, len(set.union(*answered)))


def judge(answers: Answers) -> list[Judged]:
    """Every shift, then their mean. Raises UsageError for predictors that give no line."""
    count = int(answers.predictors.sum())
    if count < LEAST:
        raise UsageError(
            f"a line needs at least {LEAST} predictors of different accuracy, and the runs hold {count}: name further "
            f"runs with an entry of the method {SOURCE!r}, as `diffcern bench specs/scenes-renditions.toml "
            "--set models.predictor=P --out RUN` makes them"
        )
    models, n, _ = answers.right.shape
    drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), RESAMPLES)  # how often each image is
    weights = np.concatenate([np.ones((1, n)), drawn])
    flat = answers.right.swapaxes(0, 1).reshape(n, -1)
    accuracy = (weights @ flat).reshape(len(weights), models, -1) / n
    groups: dict[str, list[int]] = {}
    for c, (shift, _) in enumerate(answers.conditions):
        groups.setdefault(shift, []).append(c)
    clean = accuracy[..., groups.pop(CLEAN)].mean(-1)
    if not np.ptp(clean[0, answers.predictors]):
        raise UsageError("all predictors have the same accuracy on clean images: name stronger or weaker ones too")
    if len(groups) > 1:
        groups[MEAN] = [c for columns in groups.values() for c in columns]
    judged = []
    for shift, columns in groups.items():
        shifted = accuracy[..., columns].mean(-1)
        x, y = logit(clean, n), logit(shifted, n * len(columns))
        slope, intercept = fit(x[:, answers.predictors], y[:, answers.predictors])
        judged.append(Judged(shift, n, len(columns), clean, shifted, slope, intercept))
    return judged


def logit(accuracy: Array, n: int) -> Array:
    """log(p / (1 - p)); none and all of the n answers count as 0.5 / (n + 1) and (n + 0.5) / (n + 1)."""
    return special.logit(bounded(accuracy, n))


def bounded(accuracy: Array, n: int) -> Array:
    return np.clip(accuracy, 0.5 / (n + 1), (n + 0.5) / (n + 1))


def fit(x: Array, y: Array) -> tuple[Array, Array]:
    """Slope and intercept of the least squares line over the last axis; NaN where all x are alike."""
    mean, centred = x.mean(-1), x - x.mean(-1, keepdims=True)
    spread = np.where(np.ptp(x, axis=-1) > 0, (centred**2).sum(-1), np.nan)
    slope = (centred * y).sum(-1) / spread
    return slope, y.mean(-1) - slope * mean


def interval(draws: Array, n: int = 0) -> Interval:
    """Row 0 of `[1 + resamples]`, and percentiles of the others that have a line; Wilson's, of an accuracy, given n."""
    value = float(draws[0])
    low, high = wilson(round(value * n), n) if n else np.nanpercentile(draws[1:], [2.5, 97.5])
    return value, float(low), float(high)


def rows_of(shift: Judged, answers: Answers) -> list[dict[str, Any]]:
    """One object for each model: fractions in [0, 1] as [value, low, high]."""
    line, rho, known = shift.line, shift.rho, shift.clean[0, answers.predictors]
    return [
        {
            "shift": shift.shift,
            "entry": name,
            "predictor": bool(answers.predictors[i]),
            "in_distribution": interval(shift.clean[:, i], shift.n),
            "shifted": interval(shift.shifted[:, i], shift.n if shift.columns == 1 else 0),
            "line": interval(line[:, i]),
            "effective_robustness": interval(rho[:, i]),
            "extrapolated": not known.min() <= shift.clean[0, i] <= known.max(),
            "slope": interval(shift.slope),
            "intercept": interval(shift.intercept),
            "scatter": shift.scatter(answers.predictors),
            "n": shift.n,
        }
        for i, name in enumerate(answers.names)
    ]


def print_rows(rows: Sequence[dict[str, Any]], answers: Answers) -> None:
    models, images, _ = answers.right.shape
    lacking = f" of {answers.met:,} (those that all entries answered)" if images < answers.met else ""
    table = Table(title=Text(f"{answers.dataset}, accuracy in %, {images:,} images{lacking}"), title_justify="left")
    for name in ("shift", "entry"):
        table.add_column(name, no_wrap=True)
    for name in ("in distribution", "shifted", "on the line", "effective robustness"):
        table.add_column(name, justify="right")
    for place, row in enumerate(rows):
        first = place % models == 0
        if first:
            table.add_section()
        judged = percent(row["effective_robustness"], "+") + (BEYOND if row["extrapolated"] else "")
        cells = [percent(row["in_distribution"]), percent(row["shifted"]), f"{100 * row['line'][0]:.1f}", judged]
        texts = [Text(cell) for cell in (row["shift"] if first else "", row["entry"], *cells)]
        table.add_row(*texts, style="dim" if row["predictor"] else "")
    scatter = ", ".join(f"{row['shift']} {100 * row['scatter']:.1f}" for row in rows[::models])
    notes = [
        f"Dim: the {int(answers.predictors.sum())} predictors of the line, with their residuals.",
        f"The predictors' standard deviation about their line, which no interval includes, in points: {scatter}.",
    ]
    if any(row["extrapolated"] for row in rows):
        notes.append(f"{BEYOND} The line is extrapolated: no predictor is as weak, or none as strong, in distribution.")
    if any(row[key][0] in (0, 1) for row in rows for key in ("in_distribution", "shifted")):
        notes.append("In logits, 0 and 100 % of n answers count as 0.5 / (n + 1) and (n + 0.5) / (n + 1).")
    console = Console()
    console.print(table)
    for note in notes:
        console.print(Text(note, style="dim"))


def percent(numbers: Interval, sign: str = "") -> str:
    value, low, high = (100 * number for number in numbers)
    return f"{value:{sign}z.1f} [{low:z.1f}, {high:z.1f}]"  # z: no -0.0


def plot(shifts: Sequence[Judged], rows: Sequence[dict[str, Any]]) -> Figure:
    """A panel for each shift and for their mean, all with the same logit-scaled axes; the last cell is the legend's."""
    columns = min(3, len(shifts) + 1)
    height = -(-(len(shifts) + 1) // columns)
    figure = Figure(figsize=(3 * columns, 2.9 * height), layout="constrained")
    panels = figure.subplots(height, columns, squeeze=False).ravel().tolist()
    answers = {"in_distribution": shifts[0].n, "shifted": shifts[0].n * max(shift.columns for shift in shifts)}
    across, along = (limits([row[key] for row in rows], count) for key, count in answers.items())
    for axes, shift in zip(panels, shifts, strict=False):
        draw_line(axes, shift, across)
        draw_points(axes, shift, [row for row in rows if row["shift"] == shift.shift])
        for axis, ends in ((axes.xaxis, across), (axes.yaxis, along)):
            axes.set(**{f"{axis.axis_name}scale": "logit", f"{axis.axis_name}lim": ends})
            axis.set_major_locator(FixedLocator(ticks(*ends)))
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}"))
        axes.set_title(shift.shift, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[len(shifts) :]:
        axes.axis("off")
    panels[-1].legend(*panels[0].get_legend_handles_labels(), frameon=False, fontsize=9, loc="center")
    figure.supxlabel("accuracy in distribution, %", fontsize=10)
    figure.supylabel("accuracy under the shift, %", fontsize=10)
    return figure


def draw_line(axes: Axes, shift: Judged, across: tuple[float, float]) -> None:
    """The predictors' line with its 95 % band, and y = x."""
    x = np.linspace(*special.logit(across), 60)
    lines = special.expit(shift.slope[:, None] * x + shift.intercept[:, None])
    low, high = np.nanpercentile(lines[1:], [2.5, 97.5], axis=0)
    x = special.expit(x)
    axes.plot(x, x, color=GREY, linewidth=0.9, linestyle=(0, (4, 4)), label="y = x")
    axes.fill_between(x, low, high, color="C0", alpha=0.12, linewidth=0)
    axes.plot(x, lines[0], color="C0", linewidth=1.2, label="line of the predictors, 95 %")


def draw_points(axes: Axes, shift: Judged, rows: Sequence[dict[str, Any]]) -> None:
    """Accuracies with intervals: predictors in grey, above them each judged entry with its own mark."""
    predictors = [row for row in rows if row["predictor"]]
    for i, row in enumerate([*predictors, *(row for row in rows if not row["predictor"])]):
        x, *x_ends = bounded(np.array(row["in_distribution"]), shift.n)
        y, *y_ends = bounded(np.array(row["shifted"]), shift.n * shift.columns)
        k = i - len(predictors)  # from 0 for those that are judged
        mark, colour, size = ("o", GREY, 3.5) if k < 0 else (MARKERS[k % len(MARKERS)], f"C{k + 1}", 6)
        label = row["entry"] if k >= 0 else None if i else "predictors"
        bars = {"xerr": np.abs(np.array(x_ends) - x)[:, None], "yerr": np.abs(np.array(y_ends) - y)[:, None]}
        axes.errorbar(x, y, **bars, fmt=mark, color=colour, ms=size, elinewidth=0.9, label=label)


def limits(points: Sequence[Interval], n: int) -> tuple[float, float]:
    """The ends of an axis that holds all intervals, with a margin."""
    ends = logit(np.array(points), n)
    low, high = special.expit([ends.min() - 0.15, ends.max() + 0.15])
    return float(low), float(high)


def ticks(low: float, high: float) -> list[float]:
    """Fractions to write at an axis: every tenth, in narrow ranges closer ones, and more towards 0 and 1."""
    inside: list[float] = []
    for step in (10, 5, 2, 1):
        percents = {0.5, 1, 2, 5, *range(step, 100, step), 95, 98, 99, 99.5, 99.8, 99.9}
        inside = sorted(p / 100 for p in percents if low <= p / 100 <= high)
        if len(inside) >= 4:
            break
    return inside


if __name__ == "__main__":
    main()
