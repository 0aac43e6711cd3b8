"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps")]
SeedOption = Annotated[int, typer.Option("--seed", help="every random number is keyed by it and the image")]
DtypeOption = Annotated[
    str, typer.Option("--dtype", help="precision of the prior's network: auto, float32, bfloat16 or float16")
]
CompileOption = Annotated[bool, typer.Option("--compile", help="compile the prior's network (torch.compile)")]
PickleOption = Annotated[bool, typer.Option("--allow-pickle", help="read weights that exist as pickles only")]
TrustOption = Annotated[bool, typer.Option("--trust-remote-code", help="run code that a repository brings along")]
LabelsOption = Annotated[str, typer.Option("--labels", help="what to tell apart: comma-separated, or a text file")]
PromptOption = Annotated[
    list[str] | None, typer.Option("--prompt", help="sentence around a label, for models that read text; repeatable")
]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
StrictOption = Annotated[bool, typer.Option("--strict", help="exit with 1 when an image had to be skipped")]
OutFolder = Annotated[Path, typer.Option("--out", help="run folder; the same command again continues it")]


def parse_labels(text: str) -> list[str] | None:
    """Labels from "cat,dog" or from a text file with one per line; None for no text."""
    lines = Path(text).read_text().splitlines() if text and Path(text).is_file() else text.split(",")
    return [line.strip() for line in lines if line.strip()] or None


def parse_set(pairs: list[str]) -> dict[str, object]:
    """ "name=value" options as a dictionary, the value in TOML, a bare word a string. Raises UsageError."""
    from diffcern.run.spec import override

    table: dict[str, object] = {}
    for pair in pairs:
        override(table, pair)
    return table
