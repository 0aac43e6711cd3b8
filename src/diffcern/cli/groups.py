"""Groups of commands, whose help says of each in whole what it does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from diffcern.cli.consoles import remarks
from diffcern.jobs.base import Interrupted

LOUDNESS = ("--quiet", "-q", "--verbose", "-v")
WHOLE = 1000  # letters of what a command does: its first sentence is shorter


class Group(TyperGroup):
    """Click cuts the first sentence of a command to a line; this wraps it."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, each.get_short_help_str(WHOLE)) for name, each in commands if each])


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C ends a command with exit code 130, and says what is kept."""
    try:
        yield
    except KeyboardInterrupt as interruption:
        kept = str(interruption) if isinstance(interruption, Interrupted) else "nothing more was done"
        remarks().print(f"interrupted; {kept}")
        raise typer.Exit(130) from None


class Spoken(Group):
    """Of all commands: takes the options of how loud a command is behind the command too, and ends at Ctrl-C."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        loud = [arg for arg in args[:end] if arg in LOUDNESS]
        return super().parse_args(ctx, [*loud, *(arg for arg in args[:end] if arg not in LOUDNESS), *args[end:]])

    def invoke(self, ctx: Any) -> Any:
        with interruptible():
            return super().invoke(ctx)
