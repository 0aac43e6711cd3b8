"""Pages in Debian's Chromium, driven by Playwright; all of it is skipped where either is missing.

A page fails its test when its console shows an error, or when it asks for anything but a file or this machine.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NEAR = ("file", "data", "blob", "about")
PATIENCE = 10_000  # ms, of a machine that does other things too


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    if CHROMIUM is None:
        pytest.skip("no Chromium: apt-get install chromium")
    library = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install playwright")
    with library.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def new_page(browser) -> Iterator[Callable[..., Any]]:
    """Opens pages of contexts of their own: new_page(width=390, dark=True)."""
    wrong, contexts = [], []

    def asked(url: str) -> None:
        if urlsplit(url).scheme not in NEAR and urlsplit(url).hostname not in ("127.0.0.1", "localhost"):
            wrong.append(f"asked for {url}")

    def new_page(width: int = 1100, height: int = 900, dark: bool = False) -> Any:
        scheme = "dark" if dark else "light"
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        context.on("request", lambda request: asked(request.url))
        context.on("requestfailed", lambda request: wrong.append(f"failed: {request.url}"))
        page = context.new_page()
        page.on("websocket", lambda socket: asked(socket.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        return page

    yield new_page
    for context in contexts:
        context.close()
    assert not wrong


@pytest.fixture
def page(new_page) -> Any:
    """An empty page as wide as a laptop's."""
    return new_page()


@pytest.fixture
def screenshot(request) -> Callable[[Any, str], None]:
    """screenshot(page, name) writes FOLDER/name.png where --screenshots FOLDER is given."""
    folder = request.config.getoption("--screenshots")
    if not folder:
        return lambda page, name: None

    def take(page: Any, name: str) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(folder) / f"{name}.png")

    return take
