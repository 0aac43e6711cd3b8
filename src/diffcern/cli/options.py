"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps")]
SeedOption = Annotated[int, typer.Option("--seed", help="every random number is keyed by it and the image")]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
StrictOption = Annotated[bool, typer.Option("--strict", help="exit with 1 when an image had to be skipped")]
OutFolder = Annotated[Path, typer.Option("--out", help="run folder; the same command again continues it")]


def parse_set(pairs: list[str]) -> dict[str, object]:
    """ "name=value" options as a dictionary, the value in TOML, a bare word a string. Raises UsageError."""
    from diffcern.run.spec import override

    table: dict[str, object] = {}
    for pair in pairs:
        override(table, pair)
    return table
