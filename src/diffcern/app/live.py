"""A place on a page that shows how far work in a thread has come."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from nicegui import ui

from diffcern.app.trial import Question

TICK = 0.2  # seconds between two looks at how far the work is


@contextmanager
def live(parent: ui.column, draw: Callable[..., None], question: Question) -> Iterator[Callable[..., None]]:
    """Gives what the work tells how far it has come; `draw` is called with what was told last, in a place at the end of
    the parent that is gone afterwards. Nothing is drawn of a question that was stopped."""
    latest: deque[tuple[Any, ...]] = deque(maxlen=1)
    with parent:
        place = ui.column().classes("w-full")

    def look() -> None:
        if latest and not question.stopping.is_set():
            told = latest.pop()
            place.clear()
            with place:
                draw(*told)

    with parent:
        timer = ui.timer(TICK, look)
    try:
        yield lambda *told: latest.append(told)
    finally:
        timer.cancel()
        if not place.is_deleted:
            place.delete()
