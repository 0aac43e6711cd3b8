"""The report's figures as inline SVG whose colours are CSS variables, so that they follow light and dark mode."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator, PercentFormatter
from numpy.typing import NDArray

from diffcern.report.records import Run
from diffcern.report.summary import CLEAN, MEAN, SOURCE
from diffcern.report.wording import Row, headline, label, names, shift_names

# matplotlib draws with these placeholder colours; `_svg` puts the CSS variables in their place.
INK, MUTED, LINE = "#0c0c0c", "#0b0b0b", "#0a0a0a"
VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", LINE: "var(--line)"}
SHAPES = [("o", "●"), ("s", "■"), ("D", "◆"), ("^", "▲"), ("v", "▼"), ("P", "✚"), ("X", "✖")]
COLOURS = 7  # --e1 ... --e7 of the style sheet; source has its own grey
STYLE = {
    "svg.fonttype": "none",  # text stays text: crisp, searchable, in the page's font
    "text.parse_math": False,  # a "$" in a name is a dollar
    "font.size": 9,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "text.color": INK,
}


@dataclass(frozen=True)
class Mark:
    """How an entry looks in every figure and table: colour and shape, so that neither is needed alone."""

    css: str
    marker: str
    glyph: str
    placeholder: str


@dataclass(frozen=True)
class Plot:
    """A figure of the report."""

    title: str
    caption: str
    svg: str
    tall: bool = False


def marks(entries: Sequence[str]) -> dict[str, Mark]:
    """A mark for each entry, stable under the order given."""
    others = [entry for entry in entries if entry != SOURCE]
    numbers = {SOURCE: 0, **{entry: i + 1 for i, entry in enumerate(others)}}
    found = {}
    for entry in entries:
        i = numbers[entry]
        css = f"var(--e{(i - 1) % COLOURS + 1})" if i else "var(--source)"
        marker, glyph = SHAPES[i % len(SHAPES)]
        found[entry] = Mark(css, marker, glyph, f"#0e{i:04x}")
    return found


def all_plots(run: Run, summary: Sequence[Row]) -> list[Plot]:
    """Every figure the run has data for."""
    plots = (accuracy(summary), cost(summary), losses(run), reliability(run))
    return [plot for plot in plots if plot is not None]


def accuracy(summary: Sequence[Row]) -> Plot | None:
    """Accuracy per shift: one dot with its 95 % interval for each entry."""
    table, entries = headline(summary), names(summary, "entry")
    shifts = [s for s in (CLEAN, *shift_names(summary), MEAN) if any(r["shift"] == s for r in summary)]
    if not any("value" in row for row in summary):
        return None
    with _figure(5.4, 0.75 + len(shifts) * max(0.3, 0.09 * len(entries) + 0.06)) as (figure, axes):
        for e, entry in enumerate(entries):
            mark = marks(entries)[entry]
            rows = [
                (y, table[entry, s]) for y, s in enumerate(shifts) if "value" in table.get((entry, s), {})
            ]
            x = np.array([row["value"] for _, row in rows])
            y = np.array([y for y, _ in rows]) + (e - (len(entries) - 1) / 2) * 0.66 / len(entries)
            error = np.abs([[row["ci_low"] for _, row in rows], [row["ci_high"] for _, row in rows]] - x)
            axes.errorbar(x, y, xerr=error, fmt=mark.marker, color=mark.placeholder, ms=4, lw=1.2)
        axes.set_yticks(range(len(shifts)), shifts, color=INK)
        axes.set_ylim(len(shifts) - 0.5, -0.5)
        for y in range(1, len(shifts)):
            special = y == shifts.index(MEAN) if MEAN in shifts else False
            axes.axhline(y - 0.5, color=MUTED if special else LINE, lw=0.8 if special else 0.6)
        axes.grid(axis="x")
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_xlabel("accuracy")
        svg = _svg(figure, "accuracy", entries)
    return Plot("Accuracy per shift", "Bars are 95 % intervals.", svg, tall=len(shifts) > 11)


def cost(summary: Sequence[Row]) -> Plot | None:
    """Mean accuracy against denoiser evaluations per image; zero has its place left of the logarithmic axis."""
    table, entries = headline(summary), names(summary, "entry")
    scope = MEAN if shift_names(summary) else CLEAN
    rows = [table[e, scope] for e in entries if "value" in table.get((e, scope), {})]
    if not rows or not any(row["nfe_forward"] for row in rows):
        return None
    top = max(row["nfe_forward"] for row in rows)
    with _figure(5.4, 3.4) as (figure, axes):
        axes.set_xscale("symlog", linthresh=1, linscale=0.5)
        axes.set_xlim(-0.35, top * 6)
        powers = [10**k for k in range(0, int(np.ceil(np.log10(max(top, 1)))) + 1)]
        axes.set_xticks([0, *powers])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        for row in rows:
            mark = marks(entries)[row["entry"]]
            error = [[row["value"] - row["ci_low"]], [row["ci_high"] - row["value"]]]
            x = row["nfe_forward"]
            axes.errorbar(
                x, row["value"], np.abs(error), fmt=mark.marker, color=mark.placeholder, ms=6, lw=1.2
            )
        low, high = axes.get_ylim()
        for row, y in zip(rows, _apart(rows, (high - low) * 0.065), strict=True):
            axes.annotate(
                label(row), (row["nfe_forward"], y), xytext=(8, 0), textcoords="offset points", va="center"
            )
        axes.grid(axis="y")
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_xlabel("denoiser evaluations per image")
        axes.set_ylabel("mean accuracy over shifts" if scope == MEAN else "clean accuracy")
        svg = _svg(figure, "cost", entries)
    return Plot("What accuracy costs", "Up and to the left is better.", svg)


def losses(run: Run) -> Plot | None:
    """Mean change of the loss since the first step, in units of the first step's mean."""
    entries = [entry.name for entry in run.entries]
    traces = {entry: _traces(run, entry) for entry in entries}
    if not any(trace.shape[1] > 1 for trace in traces.values()):
        return None
    with _figure(5.4, 3.4) as (figure, axes):
        for entry, trace in traces.items():
            start = abs(float(trace[:, 0].mean())) if trace.shape[1] > 1 else 0.0
            if not start:
                continue
            # Relative to each image's own start: losses differ far more between images than between steps.
            change = (trace - trace[:, :1]) / start
            count = np.isfinite(change).sum(0)
            mean = np.nanmean(change, axis=0)
            band = 1.96 * np.nanstd(change, axis=0) / np.sqrt(count)
            mark, steps = marks(entries)[entry], np.arange(1, len(mean) + 1)
            axes.fill_between(steps, mean - band, mean + band, color=mark.placeholder, alpha=0.18, lw=0)
            axes.plot(steps, mean, color=mark.placeholder, marker=mark.marker, ms=3.5, lw=1.6)
        axes.axhline(0, color=MUTED, lw=0.8)
        axes.grid(axis="y")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_xlabel("step")
        axes.set_ylabel("loss since the first step")
        svg = _svg(figure, "losses", entries)
    caption = "Each entry's own loss on shifted images, as a mean over images with its 95 % interval."
    return Plot("Does the loss go down?", caption, svg)


def reliability(run: Run) -> Plot | None:
    """Accuracy against confidence on shifted images (clean ones where nothing is shifted), in ten bins."""
    entries = [entry.name for entry in run.entries]
    errors = []
    with _figure(5.4, 3.4) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=MUTED, lw=0.8, ls=(0, (4, 4)))
        for entry in entries:
            confidence, right = _confidences(run, entry)
            if not len(confidence):
                continue
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
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_xlabel("confidence")
        axes.set_ylabel("accuracy")
        svg = _svg(figure, "reliability", entries)
    caption = f"On the dashed line, confidence is honest. Expected calibration error in points: {', '.join(errors)}."
    return Plot("Is confidence honest?", caption, svg) if errors else None


@contextmanager
def _figure(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.add_subplot()


def _svg(figure: Figure, name: str, entries: Sequence[str]) -> str:
    """The figure as an SVG element: deterministic, transparent, ids unique on the page, colours as variables."""
    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg)  # HTML knows both
    svg = re.sub(r'(?<=[ :])(id="|href="#)', rf"\g<1>{name}-", svg).replace("url(#", f"url(#{name}-")
    colours = VARIABLES | {mark.placeholder: mark.css for mark in marks(entries).values()}
    svg = re.sub(r"#0[0-9a-f]{5}\b", lambda match: colours.get(match[0], match[0]), svg)
    return re.sub(r' width="[^"]*pt"| height="[^"]*pt"', "", svg).strip()


def _apart(rows: Sequence[Row], gap: float) -> list[float]:
    """Heights for the labels of points, nudged upwards where two points of like cost lie too close."""
    placed: dict[int, float] = {}
    for i in sorted(range(len(rows)), key=lambda i: rows[i]["value"]):
        near = [y for j, y in placed.items() if abs(_log(rows[j]) - _log(rows[i])) < 0.7]
        placed[i] = max([rows[i]["value"], *(y + gap for y in near)])
    return [placed[i] for i in range(len(rows))]


def _log(row: Row) -> float:
    return float(np.log10(1 + row["nfe_forward"]))


def _traces(run: Run, entry: str) -> NDArray[Any]:
    """`[N, steps]` of the images that have a trace, NaN past its end; shifted images where there are any."""
    traces = [trace for cell in _shifted(run, entry) for trace in cell.traces if trace]
    table = np.full((len(traces), max(map(len, traces), default=0)), np.nan)
    for row, trace in zip(table, traces, strict=True):
        row[: len(trace)] = trace
    return table


def _confidences(run: Run, entry: str) -> tuple[NDArray[Any], NDArray[Any]]:
    cells = _shifted(run, entry)
    confidence = np.concatenate([cell.confidence for cell in cells])
    right = np.concatenate([cell.prediction == cell.target for cell in cells]).astype(float)
    known = np.concatenate([cell.target >= 0 for cell in cells]) & np.isfinite(confidence)
    return confidence[known], right[known]


def _shifted(run: Run, entry: str) -> list[Any]:
    cells = {key: cell for key, cell in run.cells.items() if key[0] == entry}
    return [cell for key, cell in cells.items() if key[1] != CLEAN] or list(cells.values())
