"""The command line: one file per family of commands; this one turns errors into messages and exit codes."""

from __future__ import annotations

import sys

import typer
from rich.console import Console

from diffcern.cli import train
from diffcern.cli.bench import bench, demo, report
from diffcern.cli.images import adapt, classify
from diffcern.cli.listing import listing
from diffcern.errors import DiffcernError, UsageError

app = typer.Typer(
    help="Make vision models robust at test time with pre-trained diffusion models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command()(demo)
app.command()(adapt)
app.command()(classify)
app.command()(bench)
app.command()(report)
app.add_typer(train.app, name="train")
app.command("list")(listing)


def main() -> None:
    """The entry point: exit code 0, 1 (failed) or 2 (bad usage); Ctrl-C is 130."""
    console = Console(stderr=True)
    try:
        app()
    except UsageError as error:
        console.print(f"[bold red]error:[/] {error}", soft_wrap=True, markup=True, highlight=False)
        sys.exit(2)
    except DiffcernError as error:
        console.print(f"[bold red]error:[/] {error}", soft_wrap=True, markup=True, highlight=False)
        sys.exit(1)
