"""One self-contained report.html: the values its template shows, and the writing of the file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Template
from markupsafe import Markup

from diffcern.files import write_whole
from diffcern.metrics import Metric
from diffcern.report import coverage, wording
from diffcern.report.drawing import marks
from diffcern.report.explained import Picture
from diffcern.report.gallery import BROKEN, FIXED, WRONG, build_gallery, focus_of
from diffcern.report.maps import build_maps
from diffcern.report.plots import all_plots
from diffcern.report.records import load
from diffcern.report.run import Run
from diffcern.report.summary import CLEAN, MEAN, SOURCE, main_rows, save_summary, summarise_run
from diffcern.report.templates import template
from diffcern.report.wording import BETTER, WORSE, Row, headline, names, other_metrics, shift_names, standing

SIGNS = {BETTER: ("▲", "significantly better than source"), WORSE: ("▼", "significantly worse than source")}


@dataclass(frozen=True)
class HeatCell:
    """One accuracy of a table: `tint` colours it (better, worse, plain) with `strength` in [0, 1]."""

    row: Row | None
    tint: str = "plain"
    strength: float = 0.0
    sign: str = ""
    meaning: str = ""


@dataclass(frozen=True)
class Strip:
    """Positions, in percent of its width, of a difference's interval on an axis shared by all entries."""

    low: float
    high: float
    at: float
    zero: float


def write_report(run_dir: str | Path) -> Path:
    """Write `report.html` (and the `summary.json` it shows) into a run folder; the path of the page.

    Raises DiffcernError when the folder has no readable records.
    """
    run = load(run_dir)
    return write_page(run, summarise_run(run))


def write_page(run: Run, summary: list[dict[str, Any]], explained: Sequence[Picture] = ()) -> Path:
    """The same of a run and its `summarise_run`. explained: images of the run that the page says more of."""
    save_summary(summary, run.path)
    write_whole(run.path / "report.html", report_page(run, summary, explained).encode())
    return run.path / "report.html"


def report_page(run: Run, summary: list[dict[str, Any]], explained: Sequence[Picture] = ()) -> str:
    """The page of a run and its `summarise_run`."""
    entries = [entry.name for entry in run.entries]
    shifts = shift_names(summary)
    table, strips, metric = headline(summary), _strips(summary), run.kind.metrics[0]
    return _template().render(
        run=run,
        dataset=run.title,
        spec=re.sub(r'^preset = "paper"\n', "", run.spec, flags=re.MULTILINE),  # its options are filled in
        images=len(set().union(*(cell.ids for cell in run.cells.values()))),
        summary=summary,
        table=table,
        shifts=shifts,
        columns=[s for s in (CLEAN, *shifts, MEAN) if any((entry, s) in table for entry in entries)],
        severities=sorted({row["severity"] for row in summary if row["severity"] and row["shift"] != CLEAN}),
        conditions=run.conditions,
        cells={(row["entry"], row["shift"], row["severity"]): row for row in main_rows(summary)},
        metric=metric,
        title=wording.opening(metric.title),
        others=_others(summary),
        scope=MEAN if shifts else CLEAN,
        has_source=SOURCE in entries and len(entries) > 1,
        has_targets=any("value" in row for row in summary),
        progress=coverage.progress(summary),
        verdict=wording.verdict(summary),
        findings=[*coverage.shortfalls(summary), *coverage.skips(summary), *wording.findings(summary)],
        caveats=wording.caveats(summary),
        heat=_heat(table),
        strips=strips,
        zero=next(iter(strips.values())).zero if strips else 50,
        marks=marks(entries),
        plots=[(plot, Markup(plot.svg)) for plot in all_plots(run, summary)],
        gallery=build_gallery(run, focus_of(summary)),
        explained=explained,
        maps=build_maps(run) if run.kind.dense else None,
    )


@cache
def _template() -> Template:
    """The page's template, with the words that it puts numbers into."""
    return template(
        "template.html.j2",
        accuracy=wording.accuracy,
        percent=wording.percent,
        points=wording.points,
        interval=wording.interval,
        difference=wording.difference,
        amount=wording.amount,
        measured=wording.measured,
        change=wording.change,
        described=wording.described,
        opening=wording.opening,
        mean_of=wording.mean_of,
        count=wording.count,
        label=wording.label,
        names=names,
        CLEAN=CLEAN,
        MEAN=MEAN,
        PARTIAL=wording.PARTIAL,
        SOURCE=SOURCE,
        KINDS={
            FIXED: "Fixed by",
            BROKEN: "Broken by",
            WRONG: "Still wrong under",
        },
    )


def _heat(table: dict[tuple[str, str], Row]) -> dict[tuple[str, str], HeatCell]:
    """Cells tinted by their difference to source; by their accuracy where there is none."""
    known = {key: row for key, row in table.items() if "value" in row}
    largest = max((abs(row["difference_to_source"] or 0) for row in known.values()), default=0) or 1
    values = [row["value"] for row in known.values()]
    heat = {}
    for key, row in known.items():
        change = row["difference_to_source"]
        if not change:  # source, no source to compare with, or no difference at all
            spread = (max(values) - min(values)) or 1
            heat[key] = HeatCell(row, "plain", 0 if change == 0 else (row["value"] - min(values)) / spread)
        else:
            sign, meaning = SIGNS.get(standing(row), ("", ""))
            heat[key] = HeatCell(row, BETTER if change > 0 else WORSE, abs(change) / largest, sign, meaning)
    return heat


def _others(summary: Sequence[Row]) -> list[tuple[Metric, str, dict[str, HeatCell]]]:
    """Columns of the task's other metrics, on clean images and in the mean over shifts: (metric, scope, by entry)."""
    columns = []
    for metric, rows in other_metrics(summary):
        for scope in (CLEAN, MEAN):
            cells = {}
            for (entry, shift), row in rows.items():
                if shift == scope:
                    state = standing(row, metric.better)
                    sign, meaning = SIGNS.get(state, ("", ""))
                    cells[entry] = HeatCell(row, state if sign else "plain", 0.4 if sign else 0, sign, meaning)
            columns += [(metric, scope, cells)] if cells else []
    return columns


def _strips(summary: Sequence[Row]) -> dict[str, Strip]:
    """The mean difference of every entry, drawn on one axis."""
    table = headline(summary)
    scope = MEAN if shift_names(summary) else CLEAN
    rows = {entry: table[entry, scope] for entry in names(summary, "entry") if (entry, scope) in table}
    rows = {entry: row for entry, row in rows.items() if row["difference_low"] is not None}
    low = min([0.0, *(row["difference_low"] for row in rows.values())])
    high = max([0.0, *(row["difference_high"] for row in rows.values())])
    margin = 0.06 * (high - low) or 1.0

    def place(value: Any) -> float:
        return round(100 * (value - low + margin) / (high - low + 2 * margin), 2)

    return {
        entry: Strip(
            place(row["difference_low"]),
            place(row["difference_high"]),
            place(row["difference_to_source"]),
            place(0),
        )
        for entry, row in rows.items()
    }
