"""Groups of commands, whose help says of each in whole what it does."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

LOUDNESS = ("--quiet", "-q", "--verbose", "-v")
WHOLE = 1000  # letters of what a command does: its first sentence is shorter


class Group(TyperGroup):
    """Click cuts the first sentence of a command to a line; this wraps it."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, each.get_short_help_str(WHOLE)) for name, each in commands if each])


class Spoken(Group):
    """Takes the options of how loud a command is behind the command too."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        loud = [arg for arg in args[:end] if arg in LOUDNESS]
        return super().parse_args(ctx, [*loud, *(arg for arg in args[:end] if arg not in LOUDNESS), *args[end:]])
