"""What Ctrl-C does to a command that the same command continues."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console


@contextmanager
def resumable(kept: str) -> Iterator[Console]:
    """A console on stderr to show progress on; Ctrl-C ends with exit code 130, and says what is kept."""
    console = Console(stderr=True, soft_wrap=True, markup=False)
    try:
        yield console
    except KeyboardInterrupt:
        console.print(f"interrupted; {kept}: run the same command to continue")
        raise typer.Exit(130) from None
