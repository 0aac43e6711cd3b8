"""The rows of a result on their way: into a journal as they come, then printed, and what was skipped counted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import typer
from rich.console import Console
from rich.progress import track

from diffcern.cli.table import rows_table


def write_rows(
    journal: Any, rows: Iterator[dict[str, Any]], total: int, what: str, strict: bool, as_json: bool
) -> None:
    """Writes rows as they come, prints the table (its first rows, for a long one) and what was skipped."""
    written = collect(journal, rows, total, what)
    if as_json:
        typer.echo(json.dumps(written, indent=1))
    elif good := [row for row in written if not row["error"]]:
        Console().print(rows_table(good))
    report_skipped(journal, written, strict)


def collect(
    journal: Any, rows: Iterator[dict[str, Any]], total: int, what: str, kept: str = "nothing is kept"
) -> list[dict[str, Any]]:
    """Takes rows as they come, into the journal where there is one, under a progress bar; with those it had before.

    kept: what to say of an interrupted run that has no journal.
    """
    console = Console(stderr=True, soft_wrap=True, markup=False)
    written: list[dict[str, Any]] = list(journal.rows) if journal else []
    if written:
        console.print(f"continuing: {len(written)} of {total} are done")
    try:
        for row in track(rows, what, total=total - len(written), console=console, transient=True):
            if journal:
                journal.add(row)
            written.append(row)
            if row["error"]:
                console.print(f"skipped {row['id']}: {row['error']}")
    except KeyboardInterrupt:
        if journal:
            kept = f"{len(journal.rows)} rows are kept: run the same command to continue"
        console.print(f"interrupted; {kept}")
        raise typer.Exit(130) from None
    if journal:
        journal.finish()
    return written


def report_skipped(journal: Any, written: list[dict[str, Any]], strict: bool) -> None:
    """Says where the rows are and how many were skipped; exit code 1 where that must not or leaves nothing."""
    console = Console(stderr=True, soft_wrap=True, markup=False)
    skipped = sum(bool(row["error"]) for row in written)
    if journal:
        console.print(f"{len(written) - skipped} rows in {journal.out}" + (f", {skipped} skipped" if skipped else ""))
    elif skipped:
        console.print(f"{skipped} skipped")
    if skipped and (strict or skipped == len(written)):
        raise typer.Exit(1)
