"""What a person at a terminal sees of a job's progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from diffcern.cli.consoles import remarks, voice
from diffcern.cli.progress import Rate, bar_beside, counted, progress_of
from diffcern.jobs.base import Row
from diffcern.watching import Report

LOGGED = 120.0  # seconds between two lines of a training in a log
Staged = Callable[[Console], AbstractContextManager[Report]]


@contextmanager
def bar_for_each(console: Console) -> Iterator[Report]:
    """A bar for each stage, that is for each first word of what is reported."""
    columns = [
        TextColumn("{task.description:<24}"),
        bar_beside(console, 78),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        Rate("done"),
    ]
    with Progress(*columns, console=console, transient=True) as progress, counted(progress):
        shown: dict[str, TaskID] = {}

        def report(done: int, total: int, what: str) -> None:
            stage = what.partition(",")[0]
            if stage not in shown:
                shown[stage] = progress.add_task(what, text="")
            progress.update(shown[stage], completed=done, total=total, description=what)

        yield report


@contextmanager
def one_bar(console: Console) -> Iterator[Report]:
    """A bar that stays, for all of the work."""
    columns = [TextColumn("{task.description:<36}"), bar_beside(console, 78), TextColumn("{task.percentage:>3.0f} %")]
    columns += [TimeRemainingColumn(), Rate("units")]
    with Progress(*columns, console=console) as progress, counted(progress):
        task = progress.add_task("loading", total=1, text="")
        yield lambda done, total, what: progress.update(task, completed=done, total=total, description=what)


@contextmanager
def training_bar(console: Console) -> Iterator[Report]:
    """A bar of steps that stays, from the first one on: what is read before has bars of its own. In a log, where no bar
    moves, a line now and then."""
    columns = (TextColumn("{task.description}"), bar_beside(console, 60), MofNCompleteColumn(), TimeRemainingColumn())
    with ExitStack() as stack:
        shown: list[Progress] = []
        spoken = time.monotonic()

        def report(done: int, total: int, what: str) -> None:
            nonlocal spoken
            if not shown:
                shown.append(stack.enter_context(Progress(*columns, console=console)))
                shown[0].add_task(what, total=total)
            shown[0].update(shown[0].tasks[0].id, completed=done, total=total, description=what)
            if not console.is_terminal and time.monotonic() - spoken > LOGGED:
                console.print(f"step {done} of {total}, {what}")
                spoken = time.monotonic()

        yield report


class Bars:
    """Bars on a console, and words. staged: how stages are shown."""

    def __init__(self, staged: Staged = bar_for_each, console: Console | None = None) -> None:
        self.console = console or remarks()
        self._staged = staged

    @contextmanager
    def rows(self, what: str, total: int, done: int = 0, evaluations: int = 0) -> Iterator[Callable[[Row], None]]:
        voice().stop_waiting()
        if done:
            self.say(f"continuing: {done} of {total} are done")
        with progress_of(what, total - done, self.console, evaluations) as step:

            def heard(row: Row) -> None:
                step()
                if row["error"]:
                    self.say(f"skipped {row['id']}: {row['error']}")

            yield heard
        voice().wait("finishing")

    @contextmanager
    def stages(self) -> Iterator[Report]:
        voice().stop_waiting()
        with self._staged(self.console) as report:
            yield report
        voice().wait("finishing")

    def say(self, text: str) -> None:
        self.console.print(text)
