"""`diffcern purify`: images into the domain that a prior knows, as files."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from diffcern.cli.bars import Bars
from diffcern.cli.consoles import remarks
from diffcern.cli.derive import from_job
from diffcern.cli.options import ANYWHERE, StrictOption
from diffcern.jobs.purify import Purify

OUT = "folder (of shards also s3://...); images that are there already are not made again"


@from_job(Purify)
def purify(
    job: Purify,
    out: Annotated[Any, typer.Option("--out", "-o", help=OUT, **ANYWHERE)],
    strict: StrictOption = False,
) -> None:
    """Purify images: noise them, and denoise them with a prior, guided by what they were.

    Writes PNG files named after their inputs, and a sheet of some before and after: the centre square of each image in
    the prior's resolution, or with --view whole all of it in its own.
    """
    made = job.carry_out(out, events=Bars())
    remarks().print(f"{made.in_words}; look at {made.sheet}")
    if made.skipped and strict:
        raise typer.Exit(1)
