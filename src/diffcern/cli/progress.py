"""How far a command has come, also inside an image: evaluations of the denoiser, their rate, the time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from diffcern.watching import watching

QUIET = 30.0  # seconds between two lines in a log, where no bar moves


class Counter:
    """Images and evaluations so far. expected: evaluations of one image, as far as known before the first is done."""

    def __init__(self, total: int, expected: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self.total, self.expected, self._clock = total, expected, clock
        self.images, self.evaluations, self._settled = 0, 0, 0
        self._start = clock()

    def image(self) -> None:
        """One more is done."""
        self.images += 1
        self._settled = self.evaluations

    @property
    def share(self) -> float:
        """Of the work, 0 to 1: images, and what part of the present one as far as that is known."""
        inside = self.evaluations - self._settled
        each = self._settled / self.images if self.images else self.expected
        return min(1.0, (self.images + (min(inside / each, 0.99) if each else 0.0)) / max(self.total, 1))

    @property
    def text(self) -> str:
        """`3/10, 412 evaluations, 3.2/s, 12 min left`."""
        passed = self._passed()
        parts = [f"{self.images}/{self.total}", self.rate]
        if 0 < self.share < 1 and passed > 1:
            parts.append(f"{duration(passed * (1 - self.share) / self.share)} left")
        return ", ".join(filter(None, parts))

    @property
    def rate(self) -> str:
        """`412 evaluations, 3.2/s`; `0.4 images/s` where none is heard of, as of workers; empty before the first."""
        passed = max(self._passed(), 1e-3)
        if self.evaluations:
            return f"{self.evaluations:,} evaluations, {self.evaluations / passed:.3g}/s"
        return f"{self.images / passed:.3g} images/s" if self.images else ""

    def _passed(self) -> float:
        return self._clock() - self._start


def duration(seconds: float) -> str:
    """`48 s`, `12 min`, `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


def bar_beside(console: Console, others: int) -> BarColumn:
    """A bar as wide as what stands beside it leaves on this terminal; others: the width of that."""
    return BarColumn(bar_width=max(2, min(40, console.width - others)))


@contextmanager
def progress_of(what: str, total: int, console: Console, expected: int = 0) -> Iterator[Callable[[], None]]:
    """Shows a bar while this lasts, or in a log a line now and then; call what it gives after each image.

    expected: evaluations of the denoiser for one image, 0 where that is not known beforehand.
    """
    counter, spoken = Counter(total, expected), time.monotonic()
    columns = (TextColumn("{task.description}"), bar_beside(console, 64), TextColumn("{task.fields[text]}"))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=1.0, text=counter.text)

        def show() -> None:
            nonlocal spoken
            bar.update(task, completed=counter.share, text=counter.text)
            if not console.is_terminal and time.monotonic() - spoken > QUIET:
                console.print(f"{what}: {counter.text}")
                spoken = time.monotonic()

        def evaluated(rows: int) -> None:
            counter.evaluations += rows
            show()

        def image() -> None:
            counter.image()
            show()

        with watching(evaluated):
            yield image


class Rate(ProgressColumn):
    """A task's field `text`, which `counted` fills; where it is empty how much of `what` a second brings."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def render(self, task: Task) -> Text:
        speed = f"{task.speed:.2g} {self.what}/s" if task.speed else ""
        return Text(task.fields["text"] or speed, style="dim")


@contextmanager
def counted(bar: Progress) -> Iterator[None]:
    """Shows how often the denoiser was asked in the field `text` of the latest task of a bar of one's own."""
    counter = Counter(0)

    def evaluated(rows: int) -> None:
        counter.evaluations += rows
        if bar.tasks:
            bar.update(bar.tasks[-1].id, text=counter.rate)

    with watching(evaluated):
        yield
