"""`diffcern bench` and `diffcern report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from diffcern.cli.bars import Bars, one_bar
from diffcern.cli.consoles import print_json, results, waiting
from diffcern.cli.derive import from_job
from diffcern.cli.options import HERE, JsonOption, StrictOption
from diffcern.jobs.bench import Bench, report_on


@from_job(Bench)
def bench(
    job: Bench,
    out: Annotated[
        Path | None, typer.Option("--out", help="run folder (default: runs/NAME); continues it", **HERE)
    ] = None,
    as_json: JsonOption = False,
    strict: StrictOption = False,
) -> None:
    show_run(job, out, as_json, strict)


def show_run(job: Bench, out: Path | None, as_json: bool, strict: bool = False) -> None:
    """Carries out a bench, and prints its table."""
    events = Bars(one_bar)
    run = job.carry_out(out, events=events)
    for id, reason in run.skipped.items():
        events.say(f"skipped {id}: {reason}")
    if run.page is None:
        events.say(f"this shard is done; {run.out} is complete when the others are: then `diffcern report {run.out}`")
        return
    _present(run.cells, run.page, as_json)
    if run.skipped:
        events.say(f"{len(run.skipped)} images were skipped")
        if strict:
            raise typer.Exit(1)


def report(
    run_dir: Annotated[Path, typer.Argument(help="a folder that `diffcern bench` or `diffcern demo` wrote")],
    explain: Annotated[
        int, typer.Option("--explain", min=0, help="say why the prior answers as it does, of so many images")
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Make summary.json and report.html from the records of a run, and print the table."""
    with waiting():
        _present(*report_on(run_dir, explain, Bars()), as_json)


def _present(cells: list[dict[str, Any]], page: Path, as_json: bool) -> None:
    from diffcern.report import print_table

    if as_json:
        print_json(cells)
    else:
        print_table(cells, results())
        results().print(f"\nreport: {page}", soft_wrap=True)
