"""The page "Runs": run folders below one folder, each opened as `diffcern view` writes it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

from nicegui import app, run, ui

from diffcern.app.frame import frame, small_print
from diffcern.errors import DiffcernError
from diffcern.fingerprints import digest

MOST = 500  # run folders that are listed
WINDOW = "width: 100%; height: 80vh; border: 1px solid #8884; border-radius: 8px"
DEPTH = ("*/spec.toml", "*/*/spec.toml")


@dataclass
class Shelf:
    """root: where run folders are; None where there are none. Views are written into a temporary folder that ends with
    the process: run folders are never written to."""

    root: Path | None
    _views: TemporaryDirectory[str] = field(default_factory=lambda: TemporaryDirectory(prefix="diffcern-app-"))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def place(self) -> Path:
        """Of the views, each by its number."""
        return Path(self._views.name)

    def close(self) -> None:
        """Takes the views away."""
        self._views.cleanup()

    def names(self) -> list[str]:
        """Of the run folders, relative to the root; not of links that lead out of it."""
        if self.root is None:
            return []
        root = self.root.resolve()
        found = {path.parent for pattern in DEPTH for path in self.root.glob(pattern)}
        found = {folder for folder in found if folder.resolve().is_relative_to(root)}
        return sorted(str(path.relative_to(self.root)) for path in found)[:MOST]

    def open(self, name: str) -> str:
        """Writes the view of one of `names`; its address. Raises DiffcernError for another one, and as `write_view`."""
        from diffcern.report.view import write_view

        names = self.names()
        if self.root is None or name not in names:
            raise DiffcernError(f"no such run: {name}; reload the page")
        with self._lock:  # two visitors may open the same one
            folder = self.place / digest(name)
            write_view(self.root / name, folder)
        return f"/views/{folder.name}/index.html"


def runs_page(shelf: Shelf, asked: str = "") -> None:
    """A list, and the run that is chosen. asked: the one that the page's address names, which is opened at once."""
    with frame("runs"):
        names = shelf.names()
        if not names:
            ui.label("There are no runs yet.").classes("text-lg")
            small_print("`diffcern bench digits` makes one in runs/; give another folder with --runs.")
            return
        first = asked if asked in names else names[0]
        chosen = ui.select(names, value=first, label="Run", with_input=True).classes("w-full").style("max-width: 460px")
        button = ui.button("Open")
        status = small_print("A run that is still being written is shown as far as it is.")
        place = ui.column().classes("w-full")

        async def show() -> None:
            status.set_text("reading the run")
            button.disable()
            found = await run.io_bound(_address, shelf, str(chosen.value)) or ""
            button.enable()
            place.clear()
            status.set_text("")
            if isinstance(found, DiffcernError):
                status.set_text(str(found))
                return
            ui.navigate.history.replace(f"/runs?run={quote(str(chosen.value))}")
            with place:
                ui.link("Open it in a page of its own", found, new_tab=True)
                frame_ = ui.element("iframe").style(WINDOW)
                frame_.props["src"], frame_.props["title"] = found, f"The run {chosen.value}"

        button.on_click(show)
        if asked in names:
            ui.timer(0.1, show, once=True)
        elif asked:
            status.set_text(f"There is no run {asked} here; choose one.")


def _address(shelf: Shelf, name: str) -> str | DiffcernError:
    try:
        return shelf.open(name)
    except DiffcernError as error:
        return error


def offer(shelf: Shelf) -> None:
    """Views are served, and nothing else of the disk."""
    app.add_static_files("/views", shelf.place, max_cache_age=0)
