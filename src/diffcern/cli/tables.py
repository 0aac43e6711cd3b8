"""`diffcern adapt`, `classify`, `match` and `answer`: rows into a table, and what they come to."""

from __future__ import annotations

from pathlib import Path

import typer

from diffcern.cli.bars import Bars
from diffcern.cli.consoles import print_json, remarks, results
from diffcern.cli.derive import from_job
from diffcern.cli.options import JsonOption, OutFile, OutLists, OverwriteOption, StrictOption
from diffcern.cli.shown import SHORT, rows_table, scores_table
from diffcern.jobs.adapt import Adapt
from diffcern.jobs.answer import Answer
from diffcern.jobs.classify import Classify
from diffcern.jobs.match import Match
from diffcern.jobs.rows import RowsJob, Table


@from_job(Adapt)
def adapt(
    job: Adapt,
    out: OutFile,
    strict: StrictOption = False,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Adapt a predictor to each image by generative feedback and predict, before and after.

    Segmentation and depth write their maps into the folder named like --out without its suffix.
    """
    _show(job, out, strict, overwrite, as_json)


@from_job(Classify)
def classify(
    job: Classify,
    out: OutFile = None,
    strict: StrictOption = False,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    _show(job, out, strict, overwrite, as_json)


@from_job(Match)
def match(
    job: Match,
    out: OutLists = None,
    strict: StrictOption = False,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    _show(job, out, strict, overwrite, as_json, ("scores", "score", "examples"))


@from_job(Answer)
def answer(
    job: Answer,
    out: OutLists = None,
    strict: StrictOption = False,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    _show(job, out, strict, overwrite, as_json, ("accuracies", "answer", "questions"))


def _show(
    job: RowsJob,
    out: Path | str | None,
    strict: bool,
    overwrite: bool,
    as_json: bool,
    scored: tuple[str, str, str] | None = None,
) -> None:
    """Carries out the job and prints its rows (the first ones, of many), or what they come to.

    scored: the key of that in JSON, the column that tells the scores of a group apart, and what the rows are.
    """
    table = job.carry_out(out, overwrite=overwrite, events=Bars())
    if as_json:
        rows = [*table.rows]
        print_json({scored[0]: table.scores, "rows": rows} if scored else rows)
    elif count := len(table.rows) - table.skipped:
        caption = f"{count} {scored[2]}" if scored else ""
        shown = scores_table(table.scores, scored[1], caption) if scored else rows_table(table.first(SHORT), count)
        results().print(shown)
    report_skipped(table, strict)


def report_skipped(table: Table, strict: bool) -> None:
    """Says where the rows are and how many were skipped; exit code 1 where that must not or leaves nothing."""
    console, skipped = remarks(), table.skipped
    if table.out:
        made = len(table.rows) - skipped
        console.print(f"{made} rows in {table.out}" + (f", {skipped} skipped" if skipped else ""))
    elif skipped:
        console.print(f"{skipped} skipped")
    if skipped and (strict or skipped == len(table.rows)):
        raise typer.Exit(1)
