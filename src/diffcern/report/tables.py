"""The summary as a table for the terminal and as markdown; knows nothing of run folders."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from diffcern.report.coverage import progress, skips
from diffcern.report.summary import CLEAN, MEAN, SOURCE
from diffcern.report.wording import (
    BETTER,
    DAGGER,
    PARTIAL,
    WORSE,
    Row,
    accuracy,
    amount,
    caveats,
    described,
    headline,
    label,
    main_metric,
    measured,
    names,
    other_metrics,
    shift_names,
    standing,
)

STYLES = {BETTER: "bold", WORSE: "dim red"}
SIGNS = {BETTER: "▲", WORSE: "▼"}  # of a terminal, which may have no styles
MARKDOWN = {BETTER: "**{}**", WORSE: "{} ▼"}
WIDTH = 120  # columns of a page
FINE = 1000  # images from which an interval is given in tenths of a point


@dataclass(frozen=True)
class Grid:
    """Texts with their standing (better, same, worse); the first column of `rows` names the row.

    warning: that the run is incomplete, else empty.
    """

    header: list[str]
    rows: list[list[tuple[str, str]]]
    warning: str
    notes: list[str]

    @property
    def width(self) -> int:
        """Characters a terminal needs: the widest text of each column, two of padding, one of border."""
        columns = zip(self.header, *([text for text, _ in row] for row in self.rows), strict=True)
        return 1 + sum(max(map(len, column)) + 3 for column in columns)


def build_grid(summary: Sequence[Row], width: int = WIDTH) -> Grid:
    """Entries as rows; where that is wider than `width`, shifts as rows and entries as columns."""
    table, shifts = headline(summary), shift_names(summary)
    entries = names(summary, "entry")
    columns = [s for s in (CLEAN, *shifts, MEAN) if any((entry, s) in table for entry in entries)]
    grid = []
    for entry in entries:
        rows = {shift: table[entry, shift] for shift in columns if (entry, shift) in table}
        some = next(iter(rows.values()))
        total = rows.get(MEAN, some)
        texts = [(_accuracy(rows[s]), standing(rows[s])) if s in rows else ("–", "") for s in columns]
        cost = [(amount(total["seconds_per_image"]), ""), (amount(total["nfe_forward"]), "")]
        grid.append([(label(some), ""), *texts, *cost])
    warning = f"{PARTIAL} {text}" if (text := progress(summary)) else ""
    notes = _notes(summary)
    upright = Grid(["entry", *columns, "s/image", "evaluations"], grid, warning, notes)
    if upright.width <= width:
        return upright
    turned = [[(title, ""), *(row[i] for row in grid)] for i, title in enumerate(upright.header) if i]
    flipped = Grid(["shift", *(row[0][0] for row in grid)], turned, warning, notes)
    return min(upright, flipped, key=lambda grid: grid.width)


def print_table(summary: Sequence[Row], console: Console | None = None) -> None:
    """Print the summary to the terminal."""
    console = console or Console()
    grid = build_grid(summary, console.width)
    first = summary[0]
    images = max(row["n"] for row in summary)
    title = f"{first['dataset']}, {main_metric(summary).title} in %, {images:,} images"
    header, legend, gap = grid.header[1:], "", " "
    signed = sum(any(state in SIGNS for _, state in column) for column in zip(*grid.rows, strict=True))
    if grid.width + signed > console.width:  # a cut name says nothing: numbers, and their names below
        gap = "\n"
        legend = ", ".join(f"{number} {name}" for number, name in enumerate(header, 1))
        header = [str(number) for number in range(1, len(header) + 1)]
    cells = [[_styled(text, state, gap) for text, state in row] for row in grid.rows]
    blocks = _blocks([grid.header[0], *header], cells, console.width) if legend else [range(1, len(header) + 1)]
    for number, block in enumerate(blocks):
        table = Table(title=None if number else Text(title, "table.title"), title_justify="left")
        if legend:
            table.padding = (0, 0)
        table.add_column(Text(grid.header[0]), no_wrap=True)
        for column in block:
            table.add_column(Text(header[column - 1]), justify="right")
        for row in cells:
            if row[0].plain == MEAN:
                table.add_section()
            table.add_row(row[0], *(row[column] for column in block))
            if row[0].plain == MEAN:
                table.add_section()
        console.print(table)
    if grid.warning:
        console.print(Text(grid.warning, style="bold yellow"))
    for note in [legend, *grid.notes] if legend else grid.notes:
        console.print(Text(note.replace("Bold:", f"{SIGNS[BETTER]}:"), style="dim"))
    _print_others(summary, console)


def _blocks(header: list[str], cells: list[list[Text]], width: int) -> list[list[int]]:
    """The columns but the first, in tables that are no wider than `width`: a number that is cut says another one."""
    columns = zip(header, *cells, strict=True)
    widths = [1 + max(len(line) for cell in column for line in str(cell).split("\n")) for column in columns]
    blocks: list[list[int]] = [[]]
    for column, wide in enumerate(widths[1:], 1):
        if blocks[-1] and 1 + widths[0] + sum(widths[c] for c in blocks[-1]) + wide > width:
            blocks.append([])
        blocks[-1].append(column)
    return blocks


def _print_others(summary: Sequence[Row], console: Console) -> None:
    """The task's other metrics on clean images and in the mean over shifts, where it has any."""
    found = other_metrics(summary)
    shown = [(metric, rows, s) for metric, rows in found for s in (CLEAN, MEAN) if any(key[1] == s for key in rows)]
    if not shown:
        return
    table = Table(title="other metrics", title_justify="left")
    table.add_column("entry", no_wrap=True)
    for metric, _, scope in shown:
        table.add_column(Text(f"{described(metric)}\n{scope}"), justify="right")
    for (entry, shift), first in headline(summary).items():
        if shift != shown[0][2]:
            continue
        texts = []
        for metric, rows, scope in shown:
            row = rows.get((entry, scope))
            state = standing(row, metric.better) if row else ""
            texts.append(_styled(measured(row["value"], metric) if row else "–", state, " "))
        table.add_row(Text(label(first)), *texts)
    console.print(table)
    signs = " and ".join(SIGNS.values())
    console.print(Text(f"↑: more is better; ↓: less is. {signs}: as above, against {SOURCE}.", style="dim"))


def markdown_table(summary: Sequence[Row], width: int = WIDTH) -> str:
    """The same table as markdown: bold where significantly above source, ▼ where significantly below."""
    grid = build_grid(summary, width)
    lines = [
        _line([_plain(name) for name in grid.header]),
        _line(["---", *["---:"] * (len(grid.header) - 1)]),
    ]
    for row in grid.rows:
        lines.append(_line([_marked(_plain(text), state) for text, state in row]))
    notes = ([grid.warning] if grid.warning else []) + grid.notes
    return "\n".join([*lines, "", *(f"{note}  " for note in notes)]).rstrip() + "\n"


def _accuracy(row: Row) -> str:
    """`61.2 57–65`: the interval is rounded outwards, so that it still covers what it should."""
    if "value" not in row:
        return "–"
    digits = int(row["n"] >= FINE)
    low, high = (round(100 * 10**digits * row[end], 6) for end in ("ci_low", "ci_high"))
    return f"{accuracy(row)} {math.floor(low) / 10**digits:.{digits}f}–{math.ceil(high) / 10**digits:.{digits}f}"


def _styled(text: str, state: str, gap: str) -> Text:
    """An accuracy stands out from its interval, with its sign."""
    value, space, rest = text.partition(" ") if state else (text, "", "")
    value += SIGNS.get(state, "")
    return Text.assemble((value, STYLES.get(state, "")), gap if space else "", (rest, "dim"))


def _marked(text: str, state: str) -> str:
    value, space, rest = text.partition(" ") if state else (text, "", "")
    return MARKDOWN.get(state, "{}").format(value) + space + rest


def _notes(summary: Sequence[Row]) -> list[str]:
    title = main_metric(summary).title
    article = "an" if title[0] in "aeiou" else "a"
    notes = [f"After {article} {title}: its 95 % interval, rounded outwards."]
    if any(row["difference_low"] is not None for row in summary):
        notes.append(f"Bold: significantly above {SOURCE}; {SIGNS[WORSE]}: significantly below (paired bootstrap).")
    if any(row["needs_batch"] for row in summary):
        notes.append(f"{DAGGER} needs a batch of images: it cannot answer for one image alone.")
    return notes + caveats(summary) + skips(summary)


def _plain(text: str) -> str:
    """Text that cannot break out of a markdown cell."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
