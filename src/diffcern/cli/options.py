"""Options of the command line alone: where results go, and how they are shown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from diffcern.files import path_of, place_of

JsonOption = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
StrictOption = Annotated[bool, typer.Option("--strict", help="exit with 1 when an image had to be skipped")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="replace an existing result file")]
OUT = "result file (.parquet, .csv or .json), or a folder for a table in parts, here or s3://..."
HERE: dict[str, Any] = {"parser": path_of, "metavar": "PATH"}  # of a path of this machine
ANYWHERE: dict[str, Any] = {"parser": place_of, "metavar": "PATH"}  # of that, or of the address of a store
OutFile = Annotated[Any, typer.Option("--out", help=OUT, **ANYWHERE)]
OutLists = Annotated[Any, typer.Option("--out", help=OUT.replace(", .csv", ""), **ANYWHERE)]
OutFolder = Annotated[Path, typer.Option("--out", "-o", help="folder; the same command again continues it", **HERE)]
