"""`diffcern view`: a run folder as pages that open from a disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffcern.cli.bars import Bars
from diffcern.cli.consoles import results, waiting
from diffcern.cli.options import HERE


def view(
    run_dir: Annotated[Path, typer.Argument(help="a folder that `diffcern bench` or `diffcern demo` wrote")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="folder of the pages (default: RUN_DIR/view)", **HERE)
    ] = None,
    images: Annotated[
        int | None, typer.Option("--images", min=0, help="of how many there are pictures (default: 1,000 pictures)")
    ] = None,
) -> None:
    """Pages to look through a run, image by image: static files that need no server and no network."""
    with waiting():
        from diffcern.report import write_view

        events = Bars()
        with events.stages() as report:
            made = write_view(run_dir, out or run_dir / "view", images, report)
        for sentence in made.sentences:
            events.say(sentence)
        size = f"{made.size / 1e6:.1f} MB"
        results().print(f"view: {made.page} ({made.images:,} images, {made.records:,} records, {size})", soft_wrap=True)
