"""Who watches the denoiser at work: told of every evaluation, so that an image of minutes shows signs of life.

Knows nothing of who watches; nobody is watched unless asked for, and one thread's work tells no other's watcher.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Watcher = Callable[[int], None]  # takes how many rows the denoiser has just evaluated
Report = Callable[[int, int, str], None]  # how much is done, of how much, and what
_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@contextmanager
def watching(tell: Watcher) -> Iterator[None]:
    """While this lasts, `tell` is called after every call of a denoiser, with its rows."""
    before = _watcher.set(tell)
    try:
        yield
    finally:
        _watcher.reset(before)


def evaluated(rows: int) -> None:
    """Tells the watcher, where there is one."""
    if tell := _watcher.get():
        tell(rows)


def unheard(done: int, total: int, what: str) -> None:
    """A `Report` that nobody hears."""
