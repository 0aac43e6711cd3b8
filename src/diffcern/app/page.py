"""The page "Try": choose or drop a picture, shift it, let methods answer, and ask why."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from nicegui import events, run, ui

from diffcern.app import results
from diffcern.app.frame import frame, small_print
from diffcern.app.pictures import shown
from diffcern.app.trial import LARGEST, Answer, Stopped, Trial
from diffcern.app.worlds import World
from diffcern.errors import DiffcernError

OFFERED = 8  # images to choose from, at a time
AT_FIRST = ("diffusion-tta", "diffusion-classifier", "canonical")
DRAWS = 48  # of an explanation
RIVALS = 3  # classes of it
TICK = 0.2  # seconds between two looks at how far the work is


class TryPage:
    """Of one visitor: nothing of it is shared but the models."""

    def __init__(self, worlds: Sequence[World]) -> None:
        self.worlds = {world.title: world for world in worlds}
        self.trial = Trial(worlds[0])
        self.chance = random.Random(3)  # the first pictures are the same for everybody
        self.busy = False
        self.progress = ""

    def build(self) -> None:
        with frame("try"), ui.row(wrap=True).classes("w-full gap-8 items-start"):
            with ui.column().classes("gap-3").style("flex: 1 1 320px; min-width: 0; max-width: 420px"):
                self._controls()
            with ui.column().classes("gap-4").style("flex: 2 1 360px; min-width: 0"):
                self.status = ui.label("").classes("text-sm opacity-70").props('role="status" aria-live="polite"')
                self.answers = ui.column().classes("w-full gap-3")
                self.why = ui.column().classes("w-full gap-3")
        ui.timer(TICK, lambda: self.status.set_text(self.progress))
        ui.timer(0.05, self.enter, once=True)

    def _controls(self) -> None:
        titles = [*self.worlds]
        ui.select(titles, value=titles[0], label="What to try", on_change=lambda e: self.enter(e.value)).classes(
            "w-full"
        )
        self.offered = ui.row().classes("gap-2").props('role="group" aria-label="Pictures to choose from"')
        with ui.row().classes("items-center gap-2"):
            ui.button("Others", icon="casino", on_click=self.offer).props("flat dense")
        small_print("Or drop a picture of your own (20 MB at most); it is not kept.")
        upload = ui.upload(label="A picture of yours", auto_upload=True, max_files=1, max_file_size=LARGEST)
        upload.on_upload(self.receive).on_rejected(
            lambda: self.say("That file is larger than 20 MB: give a smaller one.")
        )
        upload.classes("w-full").props('accept="image/*" flat bordered aria-label="Upload a picture"')
        self.upload = upload
        self.shift = ui.select(["clean"], value="clean", label="Shift", on_change=self.redraw).classes("w-full")
        ui.label("Severity").classes("text-sm")
        self.severity = ui.slider(min=1, max=5, value=4, on_change=self.redraw)
        self.severity.props('label markers snap label-always aria-label="Severity"').classes("mt-4")
        self.picture = ui.row().classes("gap-3")
        ui.label("Methods").classes("text-sm")
        self.methods = ui.row().classes("gap-2")
        with ui.row().classes("gap-2"):
            self.go = ui.button("Go", on_click=self.answer)
            self.asks = ui.button("Why?", on_click=self.explain).props("outline")
            self.stop = ui.button("Stop", on_click=lambda: self.trial.stopping.set()).props("outline color=negative")
        self.stop.disable()

    async def enter(self, title: str | None = None) -> None:
        """A world, whose models are loaded where nobody was there before."""
        world = self.worlds[title] if title else self.trial.world
        self.trial.stopping.set()
        while self.busy:
            await asyncio.sleep(TICK)
        self.trial = Trial(world)
        if not await self.work(world.load, "loading the models"):
            return
        self.shift.set_options(world.shifts, value="clean")
        self.methods.clear()
        with self.methods:
            self.chosen = {
                name: ui.checkbox(says, value=place < 2) for place, (name, says) in enumerate(world.methods.items())
            }
        self.offer()

    def offer(self) -> None:
        """Other pictures, of which the first is chosen."""
        images = self.trial.world.images
        rows = self.chance.sample(range(len(images)), min(OFFERED, len(images)))
        self.offered.clear()
        with self.offered:
            for number, row in enumerate(rows, 1):
                button = ui.button(on_click=lambda row=row: self.choose(row)).props(
                    f'flat aria-label="Picture {number}"'
                )
                with button.classes("p-0"):
                    shown(images[row].image, "", 56)
        self.choose(rows[0])

    def choose(self, row: int) -> None:
        try:
            self.trial.choose(row)
        except DiffcernError as error:
            self.say(str(error))
            return
        self.redraw()

    async def receive(self, event: events.UploadEventArguments) -> None:
        self.upload.reset()
        content = await event.file.read()
        if await self.work(lambda: self.trial.upload(content, event.file.name), "reading the picture"):
            self.redraw()

    def redraw(self) -> None:
        """The picture as it is, and under its shift, at once."""
        trial = self.trial
        if trial.image is None:
            return
        trial.shift, trial.severity = str(self.shift.value), int(self.severity.value)
        self.severity.set_enabled(trial.shift != "clean")
        self.answers.clear()
        self.why.clear()
        with self.answers:
            small_print("Go: what the model alone says, then each method. Why?: what the prior sees under each class.")
        self.picture.clear()
        try:
            under = trial.shown
        except DiffcernError as error:
            self.say(str(error))
            return
        with self.picture:
            shown(trial.image, "The picture as it is")
            if trial.shift != "clean":
                shown(under, f"The picture under {trial.shift}, severity {trial.severity}")

    async def answer(self) -> None:
        """Source's answer, then each chosen method's as it comes."""
        trial, world = self.trial, self.trial.world
        names = [name for name, box in self.chosen.items() if box.value]
        self.answers.clear()

        def show(answer: Answer, title: str) -> None:
            with self.answers:
                results.answer(world, answer, title, trial)

        if not (found := await self.work(trial.source, "source")):
            return
        show(found, "The model alone")
        for name in names:
            most, title = max(1, world.method(name).evaluations), world.methods[name]

            def heard(count: int, title: str = title, most: int = most) -> None:
                self.progress = f"{title}: {count} evaluations of the denoiser, of about {most}"

            if not (found := await self.work(partial(trial.ask, name, heard), title)):
                return
            show(found, title)

    async def explain(self) -> None:
        """Why: draw by draw, and then in whole."""
        trial, world = self.trial, self.trial.world
        self.why.clear()
        if world.dense:
            self.say("Maps are explained by their pictures before and after: press Go.")
            return
        if not (source := await self.work(trial.source, "source")):
            return
        rows = source.output.argsort(descending=True)[:RIVALS].tolist()
        names = [world.models.task.class_names[row] for row in rows]
        with self.why:
            live = ui.column().classes("w-full")
        latest: list[Any] = []

        def look() -> None:
            if latest:
                found, count = latest[-1]
                live.clear()
                with live:
                    results.race(found, names, count)

        timer = ui.timer(TICK, look)

        def asked() -> Any:
            return trial.explain(rows, DRAWS, lambda found, count: latest.append((found, count)))

        done = await self.work(asked, "asking the prior")
        timer.cancel()
        if done:
            live.clear()
            with live:
                results.explanation(done[0], done[1], names, RIVALS * DRAWS)

    async def work(self, do: Callable[[], Any], what: str) -> Any:
        """What work in a thread comes to, True for nothing; None where it failed, was stopped or may not begin."""
        if self.busy:
            self.say("One thing at a time: press Stop, or wait.")
            return None
        self.busy, self.progress = True, what
        self.trial.stopping.clear()
        self.go.disable(), self.asks.disable(), self.stop.enable()
        try:
            found = await run.io_bound(_quietly, do)
        finally:
            self.busy, self.progress = False, ""
            self.go.enable(), self.asks.enable(), self.stop.disable()
        if isinstance(found, Stopped):
            self.say("Stopped.")
        elif isinstance(found, Exception):
            self.say(str(found))
        else:
            return True if found is None else found
        return None

    def say(self, text: str) -> None:
        """One sentence."""
        ui.notify(text, multi_line=True, close_button="Close", timeout=8000)


def _quietly(do: Callable[[], Any]) -> Any:
    """What it returns, or the error that a visitor can do something about."""
    try:
        return do()
    except (DiffcernError, Stopped) as error:
        return error
