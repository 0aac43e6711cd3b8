"""Rows of a result as a table that fits a terminal."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text

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


def rows_table(rows: list[dict[str, Any]], limit: int = 20) -> Table:
    """The first rows, and of their columns those in `SHOWN`; all are in the file."""
    columns = [name for name in SHOWN if name in rows[0]]
    more = f" (first {limit} of {len(rows)})" if len(rows) > limit else ""
    table = Table(caption=f"{len(rows)} images{more}", box=None, header_style="bold")
    for name in columns:
        table.add_column(SHOWN[name], overflow="fold", no_wrap=not isinstance(rows[0][name], str))
    for row in rows[:limit]:
        table.add_row(*(Text(_cell(row.get(name))) for name in columns))
    return table


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return "" if value is None else str(value)
