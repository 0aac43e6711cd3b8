"""Who watches the work: told of every evaluation of the denoiser, so that an image of minutes shows signs of life, of
what a method would answer now, and of what is loaded.

Knows nothing of who watches; nobody is watched unless asked for, and one thread's work tells no other's watcher.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
Watcher = Callable[[int], None]  # takes how many rows the denoiser has just evaluated
Report = Callable[[int, int, str], None]  # how much is done, of how much, and what
_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@contextmanager
def _held(variable: ContextVar[T], value: T) -> Iterator[None]:
    before = variable.set(value)
    try:
        yield
    finally:
        variable.reset(before)


@contextmanager
def watching(tell: Watcher) -> Iterator[None]:
    """While this lasts, `tell` is called after every call of a denoiser, with its rows."""
    with _held(_watcher, tell):
        yield


def evaluated(rows: int) -> None:
    """Tells the watcher, where there is one."""
    if tell := _watcher.get():
        tell(rows)


@dataclass(frozen=True)
class Interim:
    """What a method has come to on its way, of one image at a time; None where it says nothing of it.

    output: what it would answer now, logits `[K]` or a map. loss: that of this step. image: `[3, h, w]` in [0, 1], what
    it makes of the image."""

    output: Tensor | None = None
    loss: float | None = None
    image: Tensor | None = None


_onlooker: ContextVar[Callable[[Interim], None] | None] = ContextVar("onlooker", default=None)


@contextmanager
def looking_on(see: Callable[[Interim], None]) -> Iterator[None]:
    """While this lasts, `see` is shown what methods have come to."""
    with _held(_onlooker, see):
        yield


def on_the_way(come_to: Callable[[], Interim]) -> None:
    """Shows the onlooker, where there is one, what is made for him alone."""
    if see := _onlooker.get():
        see(come_to())


def unheard(done: int, total: int, what: str) -> None:
    """A `Report` that nobody hears."""


class Listener(Protocol):
    """Who is told what is done beside the denoiser: what is loaded from where, and how long it takes."""

    def begun(self, what: str) -> None: ...

    def done(self, what: str, seconds: float) -> None: ...

    def noted(self, fact: str) -> None: ...


_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """While this lasts, `listener` hears of `doing` and `note`."""
    with _held(_listener, listener):
        yield


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Tells the listener, where there is one, what is done while this lasts, and how long it took."""
    listener, start = _listener.get(), time.perf_counter()
    if listener:
        listener.begun(what)
    yield
    if listener:
        listener.done(what, time.perf_counter() - start)


def note(fact: str) -> None:
    """Tells the listener, where there is one."""
    if listener := _listener.get():
        listener.noted(fact)
