"""`diffcern bench` and `diffcern report`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from diffcern.cli.options import DeviceOption, JsonOption, StrictOption
from diffcern.cli.progress import counted
from diffcern.cli.resumable import resumable
from diffcern.errors import DiffcernError, UsageError


def bench(
    spec: Annotated[
        str, typer.Argument(help="a TOML specification, or one that ships: digits, scenes-depth, scenes-segmentation")
    ],
    out: Annotated[Path | None, typer.Option("--out", help="run folder (default: runs/NAME); continues it")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="a.b=value, over the specification")] = None,
    workers: Annotated[int, typer.Option(help="processes of one thread each (CPU, small models)", min=1)] = 1,
    shard: Annotated[str, typer.Option(help="I/N: do every N-th unit of work, from the I-th (1 to N)")] = "1/1",
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    strict: StrictOption = False,
) -> None:
    """Evaluate methods x shifts x severities; run again to continue. Writes records, summary.json, report.html."""
    from diffcern.devices import device_named
    from diffcern.files import check_folder
    from diffcern.run.evaluate import evaluate
    from diffcern.run.spec import check_same, read_spec

    resolved = read_spec(spec, overrides or [])
    folder = out or Path("runs") / resolved.name
    chosen, part = device_named(device), _shard(shard)
    check_folder(folder)
    check_same(resolved, folder)
    shown = [TextColumn("{task.description:<44}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %")]
    shown += [TimeRemainingColumn(), TextColumn("{task.fields[text]}", style="dim")]
    kept = f"the records are kept in {folder}"
    with resumable(kept) as console, Progress(*shown, console=console) as bar, counted(bar):
        task = bar.add_task("loading", total=1, text="")
        complete, skipped = evaluate(
            resolved,
            folder,
            device=chosen,
            shard=part,
            workers=workers,
            progress=lambda done, total, what: bar.update(task, completed=done, total=total, description=what),
        )
    for id, reason in skipped.items():
        console.print(f"skipped {id}: {reason}")
    if not complete:
        console.print(f"this shard is done; {folder} is complete when the others are: then `diffcern report {folder}`")
        return
    _present(folder, as_json)
    if skipped:
        console.print(f"{len(skipped)} images were skipped")
        if strict:
            raise typer.Exit(1)


def report(
    run_dir: Annotated[Path, typer.Argument(help="a folder that `diffcern bench` or `diffcern demo` wrote")],
    as_json: JsonOption = False,
) -> None:
    """Make summary.json and report.html from the records of a run, and print the table."""
    _present(run_dir, as_json)


def _present(folder: Path, as_json: bool) -> None:
    from diffcern.report import print_table, write_report, write_summary

    cells = write_summary(folder)
    try:
        page = write_report(folder)
    except OSError as error:
        raise DiffcernError(f"cannot write the report into {folder}: {error.strerror}") from error
    if as_json:
        typer.echo(json.dumps(cells, indent=1))
    else:
        print_table(cells)
        typer.echo(f"\nreport: {page}")


def _shard(text: str) -> tuple[int, int]:
    index, slash, count = text.partition("/")
    if not (slash and index.isdigit() and count.isdigit() and 1 <= int(index) <= int(count)):
        raise UsageError(f"--shard takes I/N with 1 <= I <= N, for example 2/4, not {text!r}")
    return int(index) - 1, int(count)
