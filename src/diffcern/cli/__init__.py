"""The command line: one file per family of commands; this one turns errors into messages and exit codes."""

from __future__ import annotations

import errno
import sys
import traceback
from typing import Annotated

import typer
from rich.text import Text

from diffcern import __version__
from diffcern.cli import calibrate, train
from diffcern.cli.align import align, align_answerer
from diffcern.cli.app import app as page
from diffcern.cli.bench import bench, report
from diffcern.cli.consoles import errors, speak, voice
from diffcern.cli.demo import demo
from diffcern.cli.doctor import doctor
from diffcern.cli.explain import explain
from diffcern.cli.groups import Spoken
from diffcern.cli.listing import listing
from diffcern.cli.purify import purify
from diffcern.cli.schema import schema
from diffcern.cli.tables import adapt, answer, classify, match
from diffcern.cli.view import view
from diffcern.errors import DiffcernError, UsageError, first_line

OUT_OF_MEMORY = ("out of memory", "DefaultCPUAllocator: can't allocate")  # torch's words, on a GPU and on the CPU


app = typer.Typer(
    help="Make vision models robust at test time with pre-trained diffusion models.",
    no_args_is_help=True,
    invoke_without_command=True,
    rich_markup_mode=None,  # its boxes cut long names at 80 columns
    pretty_exceptions_enable=False,
    cls=Spoken,
)
app.command()(demo)
app.command()(adapt)
app.command()(classify)
app.command()(explain)
app.command("app")(page)
app.command()(match)
app.command()(answer)
app.command()(purify)
app.command("align")(align)
app.command("align-answerer")(align_answerer)
app.command()(bench)
app.command()(report)
app.command()(view)
app.add_typer(calibrate.app, name="calibrate")
app.add_typer(train.app, name="train")
app.command("list")(listing)
app.command()(doctor)
app.command()(schema)


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", help="print the version and exit", is_eager=True)] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="results and errors alone")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="also what is loaded from where, seconds, and tracebacks")
    ] = False,
) -> None:
    if quiet and verbose:
        raise UsageError("--quiet and --verbose: give one of the two")
    speak(quiet, verbose)
    if version:
        typer.echo(f"diffcern {__version__}")
        raise typer.Exit


def main() -> None:
    """The entry point: exit code 0, 1 (failed) or 2 (bad usage); Ctrl-C is 130."""
    try:
        app()
    except DiffcernError as error:
        _fail(str(error), 2 if isinstance(error, UsageError) else 1)
    except OSError as error:  # a file or folder that cannot be read or written
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        _fail(f"{error}{'; what was finished is kept: make room, and run the same command again' if full else ''}", 1)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        _fail(
            f"out of memory: {first_line(error)} Fewer network rows at a time need less (--set rows=N; match: --rows), "
            "so do a smaller --batch-size and --dtype bfloat16",
            1,
        )


def _fail(message: str, code: int) -> None:
    if voice().verbose:
        traceback.print_exc()
    errors().print(Text.assemble(("error:", "bold red"), f" {message}"))
    sys.exit(code)
