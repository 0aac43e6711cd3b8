"""What the pages have in common: the head, the colours, and the way from one to the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nicegui import ui

from diffcern import __version__

FIGURES = ":root { --ink: currentColor; --muted: #8a8f94; --line: #8884; }"  # colours of figures, see report/drawing.py
PAGES = {"try": ("Try", "/"), "runs": ("Runs", "/runs")}


@contextmanager
def frame(here: str) -> Iterator[None]:
    """The head of a page, and a column for the rest."""
    ui.colors(primary="#0072b2", negative="#c44e00")
    dark = ui.dark_mode(None)  # as the system has it
    ui.add_css(FIGURES)
    ui.add_head_html('<script>document.documentElement.lang = "en"</script>')
    with ui.header(elevated=False).classes("items-center gap-6").style("background: #10344a"):
        ui.label("diffcern").classes("text-lg font-medium").props('role="heading" aria-level="1"')
        with ui.row().classes("gap-4").props('role="navigation" aria-label="Pages"'):
            for name, (title, target) in PAGES.items():
                link = ui.link(title, target).classes("text-white no-underline")
                if name == here:
                    link.classes("font-bold").props('aria-current="page"')
        ui.space()
        ui.button(icon="contrast", on_click=dark.toggle).props('flat dense color=white aria-label="Light or dark"')
    with ui.column().classes("w-full mx-auto px-3").style("max-width: 1180px"):
        yield
        small_print(f"diffcern {__version__}. Everything runs on this machine, and nothing is sent elsewhere.")


def small_print(text: str) -> ui.label:
    return ui.label(text).classes("text-sm opacity-70")
