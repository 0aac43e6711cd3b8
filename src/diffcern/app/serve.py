"""The pages on an address of this machine."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from nicegui import app, ui

from diffcern.app.page import TryPage
from diffcern.app.runs import Shelf, offer, runs_page
from diffcern.app.worlds import World


def serve(worlds: Sequence[World], runs: Path | None, host: str, port: int, *, show: bool) -> None:
    """Until Ctrl-C. runs: a folder of run folders; nothing outside it can be read."""
    shelf = Shelf(runs)
    offer(shelf)

    @ui.page("/", title="diffcern")
    def try_() -> None:
        TryPage(worlds).build()

    @ui.page("/runs", title="Runs – diffcern")
    def runs_(run: str = "") -> None:
        runs_page(shelf, run)

    loader = threading.Thread(target=worlds[0].load)  # while the visitor opens the page
    loader.start()
    app.on_shutdown(lambda: loader.join())  # a library that is being loaded does not like to be left
    app.on_shutdown(shelf.close)
    ui.run(
        host=host,
        port=port,
        show=show,
        reload=False,
        title="diffcern",
        dark=None,
        show_welcome_message=False,
        favicon="🔎",
    )
