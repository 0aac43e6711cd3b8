"""The two streams of a command: results on stdout, and on stderr what goes on, as loud as --quiet and --verbose say."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.status import Status

from diffcern.watching import listening


class Voice:
    """How loud a command is. quiet: results and errors alone. verbose: also what is loaded from where, with seconds,
    and where an error comes from."""

    def __init__(self, quiet: bool = False, verbose: bool = False) -> None:
        self.quiet, self.verbose = quiet, verbose
        self.console = Console(stderr=True, soft_wrap=True, markup=False, emoji=False, quiet=quiet)
        self.waits = False
        self._line: Status | None = None

    def begun(self, what: str) -> None:
        if self._line:
            self._line.update(what)

    def done(self, what: str, seconds: float) -> None:
        if self.verbose:
            self.console.print(f"{what}: {seconds:.2f} s")

    def noted(self, fact: str) -> None:
        if self.verbose:
            self.console.print(fact)

    def wait(self, what: str) -> None:
        """From here on a line says what goes on, until something else is shown: on a terminal, while `waiting`."""
        if self.waits and self.console.is_terminal and not self.quiet and self._line is None:
            self._line = self.console.status(what)
            self._line.start()

    def stop_waiting(self) -> None:
        if self._line:
            self._line.stop()
            self._line = None


_voice = [Voice()]  # of the command that runs: a process has one


def voice() -> Voice:
    return _voice[0]


def speak(quiet: bool, verbose: bool) -> None:
    """How loud everything is that follows."""
    _voice[0] = Voice(quiet, verbose)


@contextmanager
def waiting() -> Iterator[None]:
    """While this lasts, what is done is heard and shown (see `Voice`)."""
    start = time.perf_counter()
    with listening(voice()):
        voice().waits = True
        voice().wait("starting")
        try:
            yield
        finally:
            voice().stop_waiting()
            voice().waits = False
            voice().noted(f"in all: {time.perf_counter() - start:.2f} s")


def remarks() -> Console:
    """For what a person should know and a program need not."""
    return voice().console


def results() -> Console:
    """For what was asked for; the line that waited for it ends here."""
    voice().stop_waiting()
    return Console(highlight=False, markup=False, emoji=False)


def errors() -> Console:
    """For what went wrong, and what to do next: --quiet leaves it."""
    return Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)


def print_json(value: Any) -> None:
    voice().stop_waiting()
    typer.echo(json.dumps(value, indent=1))
