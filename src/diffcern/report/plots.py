"""The report's figures: the task's first metric (a fraction) per shift and against cost, losses, reliability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator, PercentFormatter
from numpy.typing import NDArray

from diffcern.report.confidence import reliability, selective
from diffcern.report.drawing import FRAME, HEIGHT, INK, LINE, MUTED, WIDTH, Plot, marks, new_figure, to_svg
from diffcern.report.run import Run
from diffcern.report.summary import CLEAN, MEAN
from diffcern.report.tempered import tempered
from diffcern.report.wording import (
    PARTIAL,
    Row,
    headline,
    label,
    main_metric,
    mean_of,
    names,
    opening,
    shift_names,
)

LETTER, TEXT = 5.0, 12.0  # width of a letter and height of a line of labels, in points


def all_plots(run: Run, summary: Sequence[Row]) -> list[Plot]:
    """Every figure the run has data for."""
    rows = len(shift_names(summary)) + 2
    height = 0.75 + rows * max(0.3, 0.09 * len(run.entries) + 0.06)
    tall = height > 1.5 * HEIGHT  # such a figure stands beside all the others, a lower one beside one

    after = tempered(run)

    def others(first: float, rest: float) -> list[Plot]:
        plots = (cost(summary, first), losses(run, rest), reliability(run, rest, after), selective(run, rest, after))
        return [plot for plot in plots if plot is not None]

    beside = others(max(height, 2.6), HEIGHT)
    if tall and beside:
        share = min(max((height - FRAME * (len(beside) - 1)) / len(beside), 2.3), HEIGHT)
        beside = others(share, share)
        height = max(height, share * len(beside) + FRAME * (len(beside) - 1))
    main = per_shift(summary, height, tall and bool(beside))
    return [main, *beside] if main else beside


def per_shift(summary: Sequence[Row], height: float, tall: bool) -> Plot | None:
    """One dot with its 95 % interval for each entry on each shift."""
    table, entries, metric = headline(summary), names(summary, "entry"), main_metric(summary)
    shifts = [s for s in (CLEAN, *shift_names(summary), MEAN) if any(r["shift"] == s for r in summary)]
    if not any("value" in row for row in summary):
        return None
    with new_figure(height) as (figure, axes):
        for e, entry in enumerate(entries):
            mark = marks(entries)[entry]
            rows = [(i, table[entry, s]) for i, s in enumerate(shifts) if "value" in table.get((entry, s), {})]
            x = np.array([row["value"] for _, row in rows])
            y = np.array([i for i, _ in rows]) + (e - (len(entries) - 1) / 2) * 0.66 / len(entries)
            error = np.abs([[row["ci_low"] for _, row in rows], [row["ci_high"] for _, row in rows]] - x)
            axes.errorbar(x, y, xerr=error, fmt=mark.marker, color=mark.placeholder, ms=4, lw=1.2)
        axes.set_yticks(range(len(shifts)), shifts, color=INK)
        axes.set_ylim(len(shifts) - 0.5, -0.5)
        for i, shift in enumerate(shifts[1:], start=1):
            axes.axhline(i - 0.5, color=MUTED if shift == MEAN else LINE, lw=0.8 if shift == MEAN else 0.6)
        axes.grid(axis="x")
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_xlabel(metric.title)
        svg = to_svg(figure, metric.name, entries)
    return Plot(f"{opening(metric.title)} per shift", "Bars are 95\u00a0% intervals.", svg, tall)


def cost(summary: Sequence[Row], height: float) -> Plot | None:
    """The mean over shifts against denoiser evaluations per image (logarithmic, with a place for zero)."""
    table, entries, metric = headline(summary), names(summary, "entry"), main_metric(summary)
    scope = MEAN if shift_names(summary) else CLEAN
    rows = [table[e, scope] for e in entries if "value" in table.get((e, scope), {})]
    if not rows or not any(row["nfe_forward"] for row in rows):
        return None
    top = max(row["nfe_forward"] for row in rows)
    with new_figure(height) as (figure, axes):
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
            colour = mark.placeholder
            axes.errorbar(x, row["value"], np.abs(error), fmt=mark.marker, color=colour, ms=6, lw=1.2, clip_on=False)
        ends = [row[end] for row in rows for end in ("ci_low", "ci_high")]
        # The axis ends at ticks, so that 100 % has one; none is a fraction of a percent.
        ticks = MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(min(ends), max(ends))
        axes.set_yticks(ticks)
        axes.set_ylim(ticks[0], ticks[-1])
        _name(axes, rows, [marks(entries)[row["entry"]].placeholder for row in rows], height)
        axes.grid(axis="y")
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_xlabel("denoiser evaluations per image")
        axes.set_ylabel(f"{mean_of(metric)} over shifts" if scope == MEAN else f"clean {metric.title}")
        svg = to_svg(figure, "cost", entries)
    return Plot(f"What {metric.title} costs", "Up and to the left is better.", svg)


def losses(run: Run, height: float) -> Plot | None:
    """Mean change of the loss since the first step, in units of the first step's mean."""
    entries = [entry.name for entry in run.entries]
    traces = {entry: _traces(run, entry) for entry in entries}
    if not any(len(trace) and trace.shape[1] > 1 for trace in traces.values()):
        return None
    with new_figure(height) as (figure, axes):
        for entry, trace in traces.items():
            start = abs(float(trace[:, 0].mean())) if len(trace) and trace.shape[1] > 1 else 0.0
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
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.set_xlabel("step")
        axes.set_ylabel("loss since the first step")
        svg = to_svg(figure, "losses", entries)
    caption = "Each entry's own loss on shifted images, as a mean over images with its 95\u00a0% interval."
    return Plot("Does the loss go down?", caption, svg)


def _name(axes: Axes, rows: Sequence[Row], colours: Sequence[str], height: float) -> None:
    """Names the points: neighbours in one column to the right of them, each with a line to its point."""
    data = [(row["nfe_forward"], row["value"]) for row in rows]
    at = axes.transAxes.inverted().transform(axes.transData.transform(data))  # [N, 2], fractions of the axes
    texts = [label(row) + ("" if row["complete"] else PARTIAL) for row in rows]
    widths = np.array([LETTER * len(text) for text in texts]) / (72 * (WIDTH - 0.7))
    beside = 12 / (72 * (WIDTH - 0.7))
    columns: list[list[int]] = []
    edge = -np.inf
    for i in np.argsort(at[:, 0], kind="stable").tolist():
        if at[i, 0] > edge:
            columns.append([])
        columns[-1].append(i)
        edge = max(at[columns[-1], 0]) + max(widths[columns[-1]]) + 2 * beside
    for column in columns:
        column.sort(key=lambda i: at[i, 1])
        x = max(at[column, 0]) + beside
        for i, y in zip(column, _apart(at[column, 1], TEXT / (72 * (height - 0.6))), strict=True):
            line = {"arrowstyle": "-", "color": colours[i], "lw": 0.7, "shrinkA": 1, "shrinkB": 3}
            axes.annotate(texts[i], data[i], (x, y), "data", "axes fraction", line, False, va="center")


def _apart(values: NDArray[Any], gap: float) -> NDArray[Any]:
    """Ascending heights in [0, 1] as near to the ascending `values` as a gap between them lets them be.

    The mean of what nudging upwards alone and downwards alone would give keeps the gap, as both do.
    """
    steps = min(gap, 1 / max(len(values) - 1, 1)) * np.arange(len(values))
    free = values - steps
    up, down = np.maximum.accumulate(free), np.minimum.accumulate(free[::-1])[::-1]
    return np.clip((up + down) / 2, 0, 1 - steps[-1]) + steps


def _traces(run: Run, entry: str) -> NDArray[Any]:
    """`[N, steps]` of the images that have a trace, NaN past its end; shifted images where there are any."""
    tables = [cell.traces for cell in run.shifted(entry)]
    steps = max(table.shape[1] for table in tables)
    padded = [np.pad(t, ((0, 0), (0, steps - t.shape[1])), constant_values=np.nan) for t in tables]
    table = np.concatenate(padded)
    return table[np.isfinite(table[:, :1]).any(axis=1)]
