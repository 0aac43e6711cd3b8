"""The left side of the page "Try": what to try, on which picture, under which shift, by which methods."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from nicegui import ui

from diffcern.app.frame import small_print
from diffcern.app.pictures import image, shown
from diffcern.app.trial import LARGEST, Question
from diffcern.app.worlds import Picture, World

if TYPE_CHECKING:
    from diffcern.app.page import TryPage

AT_FIRST = ("diffusion-tta", "diffusion-classifier", "canonical")  # methods that are chosen


class Controls:
    """Knows what is chosen; the page knows what to do with it."""

    def __init__(self, page: TryPage) -> None:
        self.page, titles = page, [*page.worlds]
        self.boxes: dict[str, ui.checkbox] = {}
        worlds = ui.select(titles, value=titles[0], label="What to try", on_change=lambda e: page.enter(e.value))
        worlds.classes("w-full")
        self.offered = ui.row().classes("gap-2").props('role="group" aria-label="Pictures to choose from"')
        self.others = ui.button("Others", icon="casino", on_click=page.offer).props("flat dense")
        small_print("Or drop a picture of your own (20 MB at most); it is not kept.")
        self.upload = ui.upload(label="A picture of yours", auto_upload=True, max_files=1, max_file_size=LARGEST)
        self.upload.on_upload(page.receive)
        self.upload.on_rejected(lambda: page.say("That is no picture of at most 20 MB: give another."))
        self.upload.classes("w-full").props('accept="image/*" flat bordered aria-label="Upload a picture"')
        self.texts = ui.textarea("What to tell apart, one a line", on_change=page.redraw).classes("w-full")
        self.texts.props("autogrow outlined dense debounce=600")
        self.texts.set_visibility(False)
        self.shift = ui.select(["clean"], value="clean", label="Shift", on_change=page.redraw).classes("w-full")
        ui.label("Severity").classes("text-sm")
        self.severity = ui.slider(min=1, max=5, value=4, on_change=page.redraw)
        self.severity.props('label markers snap label-always aria-label="Severity"').classes("mt-4")
        self.picture = ui.row().classes("gap-3")
        ui.label("Methods").classes("text-sm")
        self.methods = ui.row().classes("gap-2")
        with ui.row().classes("gap-2"):
            self.go = ui.button("Go", on_click=page.answer)
            self.why = ui.button("Why?", on_click=page.explain).props("outline")
            self.stopper = ui.button("Stop", on_click=page.stop).props("outline color=negative")
        self.free(False)

    @property
    def shift_name(self) -> str:
        return str(self.shift.value)

    @property
    def severity_number(self) -> int:
        return int(self.severity.value)

    @property
    def chosen_methods(self) -> list[str]:
        return [name for name, box in self.boxes.items() if box.value]

    @property
    def labels(self) -> tuple[str, ...]:
        """Each line once."""
        lines = (" ".join(line.split()) for line in str(self.texts.value or "").splitlines())
        return tuple(dict.fromkeys(filter(None, lines)))

    @labels.setter
    def labels(self, labels: Sequence[str]) -> None:
        self.texts.set_value("\n".join(labels))

    def empty(self) -> None:
        """Until a world is loaded there is nothing to choose."""
        for part in (self.offered, self.picture, self.methods):
            part.clear()
        self.boxes = {}
        self.texts.set_visibility(False)

    def fill(self, world: World) -> None:
        """What a world has to choose from."""
        self.shift.set_options(world.shifts, value="clean")
        self.labels = world.labels
        self.texts.set_visibility(bool(world.labels))
        with self.methods:
            self.boxes = {name: ui.checkbox(says, value=name in AT_FIRST) for name, says in world.methods.items()}

    def offer(self, pictures: Sequence[tuple[Picture, str]]) -> None:
        """Pictures and what is shown of them."""
        self.offered.clear()
        with self.offered:
            for number, (picture, source) in enumerate(pictures, 1):
                button = ui.button(on_click=partial(self.page.choose, picture)).classes("p-0")
                with button.props(f'flat aria-label="Picture {number}"'):
                    image(source, "", 56)

    def show(self, question: Question) -> None:
        """The picture as it is, and under its shift."""
        clean = self.shift_name == "clean"
        self.severity.set_enabled(not clean)
        self.picture.clear()
        with self.picture:
            shown(question.picture.image, "The picture as it is")
            if not clean:
                shown(question.shown, f"The picture under {self.shift_name}, severity {self.severity_number}")
        self.free(True)

    def show_nothing(self) -> None:
        """There is a picture, and none under its shift."""
        self.picture.clear()
        self.free(False)

    def busy(self, stoppable: bool) -> None:
        for button in (self.go, self.why, self.others):
            button.disable()
        self.stopper.set_enabled(stoppable)

    def free(self, ready: bool) -> None:
        """ready: whether there is a picture to ask about."""
        self.stopper.disable()
        self.others.enable()
        self.go.set_enabled(ready)
        self.why.set_enabled(ready)
