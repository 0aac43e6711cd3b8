"""The rows of a result on their way: into a journal as they come, then printed, and what was skipped counted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import typer
from rich.console import Console

from diffcern.cli.progress import progress_of
from diffcern.cli.table import rows_table


def write_rows(
    journal: Any,
    rows: Iterator[dict[str, Any]],
    total: int,
    what: str,
    strict: bool,
    as_json: bool,
    evaluations: int = 0,
) -> None:
    """Writes rows as they come, prints the table (its first rows, for a long one) and what was skipped.

    evaluations: of the denoiser for each, where known.
    """
    written = collect(journal, rows, total, what, evaluations=evaluations)
    if as_json:
        typer.echo(json.dumps(written, indent=1))
    elif good := [row for row in written if not row["error"]]:
        Console().print(rows_table(good))
    report_skipped(journal, written, strict)


def collect(
    journal: Any,
    rows: Iterator[dict[str, Any]],
    total: int,
    what: str,
    kept: str = "nothing is kept",
    evaluations: int = 0,
) -> list[dict[str, Any]]:
    """Takes rows as they come, into the journal where there is one, under a progress bar; with those it had before.

    kept: what to say of an interrupted run that has no journal.
    """
    console = Console(stderr=True, soft_wrap=True, markup=False)
    written: list[dict[str, Any]] = list(journal.rows) if journal else []
    if written:
        console.print(f"continuing: {len(written)} of {total} are done")
    try:
        with progress_of(what, total - len(written), console, evaluations) as done:
            for row in rows:
                if journal:
                    journal.add(row)
                written.append(row)
                done()
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
