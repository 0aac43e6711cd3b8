"""Rows and scores as tables that fit a terminal."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text

SHORT = 20  # rows that are shown of many
SHOWN = {  # columns of the table in the terminal, and what it calls them
    "id": "id",
    "before": "before",
    "before_confidence": "conf.",
    "after": "after",
    "after_confidence": "conf.",
    "changed": "changed",
    "file": "file",
    "label": "label",
    "confidence": "conf.",
    "margin": "margin",
    "margin_standard_error": "± s.e.",
    "nfe_forward": "evaluations",
}


def rows_table(rows: list[dict[str, Any]], count: int) -> Table:
    """The first rows, of `count`, and of their columns those in `SHOWN`; all are in the file."""
    columns = [name for name in SHOWN if name in rows[0]]
    more = f" (first {len(rows)})" if count > len(rows) else ""
    table = Table(caption=f"{count} images{more}", box=None, header_style="bold")
    for name in columns:
        table.add_column(SHOWN[name], overflow="fold", no_wrap=not isinstance(rows[0][name], str))
    for row in rows:
        table.add_row(*(Text(_cell(row.get(name))) for name in columns))
    return table


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return "" if value is None else str(value)


def scores_table(scores: list[dict[str, Any]], key: str, caption: str) -> Table:
    """Scores of each group in %, with their intervals. key: tells those of a group apart."""
    table = Table("", key, "% right", "95 % interval", "N", caption=caption, box=None, header_style="bold")
    for row in scores:
        interval = f"[{100 * row['ci_low']:.1f}, {100 * row['ci_high']:.1f}]"
        table.add_row(*map(Text, (row["group"], row[key], f"{100 * row['value']:.1f}", interval, str(row["n"]))))
    return table
