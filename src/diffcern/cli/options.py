"""Options of the command line alone: where results go, and how they are shown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

JsonOption = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
StrictOption = Annotated[bool, typer.Option("--strict", help="exit with 1 when an image had to be skipped")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="replace an existing result file")]
OUT = "result file (.parquet, .csv or .json), or a folder for a table in parts"
OutFile = Annotated[Path | None, typer.Option("--out", help=OUT)]
OutLists = Annotated[Path | None, typer.Option("--out", help=OUT.replace(", .csv", ""))]
OutFolder = Annotated[Path, typer.Option("--out", "-o", help="folder; the same command again continues it")]
