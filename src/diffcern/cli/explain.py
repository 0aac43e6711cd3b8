"""`diffcern explain`: why a prior takes images for what it does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffcern.cli.bars import Bars
from diffcern.cli.consoles import print_json, remarks, results
from diffcern.cli.derive import from_job
from diffcern.cli.options import HERE, JsonOption, OverwriteOption, StrictOption
from diffcern.jobs.explain import Explain


@from_job(Explain)
def explain(
    job: Explain,
    out: Annotated[Path | None, typer.Option("--out", help="a page, FILE.html", **HERE)] = None,
    strict: StrictOption = False,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    found = job.carry_out(out, overwrite=overwrite, events=Bars())
    rows = [told.row for told in found.told]
    if as_json:
        print_json(rows)
    else:
        for row in rows:
            if not row["error"]:
                results().print("\n  ".join([f"{row['id']}: {row['answers'][0]}", *row["in_words"]]))
    console = remarks()
    if found.out:
        console.print(f"{len(rows) - found.skipped} images explained in {found.out}")
    for row in rows:
        if row["error"]:
            console.print(f"skipped {row['id']}: {row['error']}")
    if found.skipped and (strict or found.skipped == len(rows)):
        raise typer.Exit(1)
