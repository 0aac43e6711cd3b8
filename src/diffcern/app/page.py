"""The page "Try": choose or drop a picture, shift it, let methods answer, and ask why."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from nicegui import events, run, ui

from diffcern.app import results
from diffcern.app.controls import Controls
from diffcern.app.frame import frame, small_print
from diffcern.app.live import TICK, live
from diffcern.app.pictures import thumbnail
from diffcern.app.trial import LARGEST, Answer, Question, Stopped, uploaded
from diffcern.app.worlds import Picture, World
from diffcern.errors import DiffcernError

OFFERED = 8  # images to choose from, at a time
DRAWS = 48  # of an explanation
RIVALS = 3  # classes of it


class TryPage:
    """Of one visitor: nothing of it is shared but the models."""

    def __init__(self, worlds: Sequence[World]) -> None:
        self.worlds = {world.title: world for world in worlds}
        self.world = worlds[0]
        self.chance = random.Random(3)  # the first pictures are the same for everybody
        self.picture: Picture | None = None
        self.asked: Question | None = None
        self.busy = False
        self.progress = ""
        self.drawn, self.entered = 0, 0  # how often

    def build(self) -> None:
        with frame("try"), ui.row(wrap=True).classes("w-full gap-8 items-start"):
            with ui.column().classes("gap-3").style("flex: 1 1 320px; min-width: 0; max-width: 420px"):
                self.controls = Controls(self)
            with ui.column().classes("gap-4").style("flex: 2 1 360px; min-width: 0"):
                self.status = ui.label("").classes("text-sm opacity-70").props('role="status" aria-live="polite"')
                self.answers = ui.column().classes("w-full gap-3")
                self.why = ui.column().classes("w-full gap-3")
        ui.timer(TICK, lambda: self.status.set_text(self.progress))
        ui.timer(0.05, self.enter, once=True)
        ui.context.client.on_disconnect(self.stop)  # who has gone away keeps nobody waiting

    def stop(self) -> None:
        """Whatever is asked at the moment."""
        if self.asked:
            self.asked.stopping.set()

    async def enter(self, title: str | None = None) -> None:
        """A world, whose models are loaded where nobody was there before."""
        self.stop()
        self.entered += 1
        mine = self.entered
        while self.busy:
            await asyncio.sleep(TICK)
        if mine != self.entered:  # another one was chosen meanwhile
            return
        self.world, self.picture = self.worlds[title] if title else self.world, None
        self.controls.empty()
        self.clear()
        if await self.work(self.world.load, "loading the models") is not None:
            self.controls.fill(self.world)
            await self.offer()

    async def offer(self) -> None:
        """Other pictures, of which the first is chosen; those that cannot be read are left out, and counted."""
        found = await self.work(partial(_some, self.world, self.chance), "reading pictures")
        if found is None:
            return
        pictures, unread = found
        if unread:
            self.say(f"{unread} pictures could not be read, and are left out.")
        self.controls.offer(pictures)
        if pictures:
            await self.choose(pictures[0][0])

    async def choose(self, picture: Picture) -> None:
        self.picture = picture
        if picture.labels:
            self.controls.labels = picture.labels
        await self.redraw()

    async def receive(self, event: events.UploadEventArguments) -> None:
        """A picture of the visitor's."""
        self.controls.upload.reset()
        if event.file.size() > LARGEST:
            self.say("That picture is larger than 20 MB: give a smaller one.")
            return
        content, name = await event.file.read(), event.file.name
        if picture := await self.work(partial(uploaded, content, name), "reading the picture"):
            await self.choose(picture)

    async def redraw(self) -> None:
        """The picture as it is, and under its shift; what was asked about another one is stopped."""
        self.stop()
        self.clear()
        self.drawn += 1
        mine = self.drawn
        if self.picture is None:
            return
        question = await asyncio.to_thread(_quietly, self.question())
        if mine != self.drawn:  # something else was chosen meanwhile
            return
        if not isinstance(question, Question):
            self.controls.show_nothing()
            self.say(f"{question}: choose another picture, or another shift")
            return
        with self.answers:
            small_print("Go: what the model alone says, then each method. Why?: what the prior sees under each class.")
        self.controls.show(question)

    def question(self) -> Callable[[], Question]:
        """Makes one about what is shown now, whatever is chosen until it is made."""
        world, picture, chosen = self.world, self.picture, self.controls
        how = chosen.shift_name, chosen.severity_number, chosen.labels

        def make() -> Question:
            if picture is None:
                raise DiffcernError("there is no picture yet: choose one, or drop one of yours")
            return Question.of(world, picture, *how)

        return make

    def clear(self) -> None:
        """Answers belong to a picture."""
        self.answers.clear()
        self.why.clear()

    async def answer(self) -> None:
        """Source's answer, then each chosen method's, which can be watched as it comes."""
        if not (question := await self.begin(self.answers)):
            return
        if not (found := await self.work(question.source, "The model alone", question)):
            return
        self.put(found, "The model alone", question)
        for name in self.controls.chosen_methods:
            title = question.world.methods[name]
            draw = partial(results.on_the_way, title=title, question=question, name=name)
            with live(self.answers, draw, question) as heard:
                found = await self.work(partial(question.ask, name, heard), title, question)
            if not found:
                return
            self.put(found, title, question)

    def put(self, answer: Answer, title: str, question: Question) -> None:
        with self.answers:
            results.answer(answer, title, question)

    async def explain(self) -> None:
        """Why: draw by draw, and then in whole."""
        if self.world.dense:
            self.say("Maps are explained by their pictures before and after: press Go.")
            return
        if not (question := await self.begin(self.why)):
            return
        if not (source := await self.work(question.source, "source", question)):
            return
        rows = source.output.argsort(descending=True)[:RIVALS].tolist()
        names = [question.world.models.task.class_names[row] for row in rows]
        with live(self.why, partial(results.race, names=names), question) as heard:
            done = await self.work(partial(question.explain, rows, DRAWS, heard), "asking the prior", question)
        if done:
            with self.why:
                results.explanation(done[0], done[1], done[2], names)

    async def begin(self, place: ui.column) -> Question | None:
        """What is asked, and an empty place for its answers."""
        if self.busy:
            self.say("One thing at a time: press Stop, or wait.")
            return None
        self.busy, shown = True, self.drawn  # claimed before anything is waited for
        try:
            question = await asyncio.to_thread(_quietly, self.question())
        finally:
            self.busy = False
        if shown != self.drawn:  # another picture, shift or label was chosen meanwhile
            return None
        if not isinstance(question, Question):
            self.say(str(question))
            return None
        self.asked = question
        place.clear()
        return question

    async def work(self, do: Callable[[], Any], what: str, question: Question | None = None) -> Any:
        """What work in a thread comes to, True for nothing; None where it failed, was stopped or may not begin."""
        if self.busy:
            self.say("One thing at a time: press Stop, or wait.")
            return None
        self.busy, self.progress = True, what
        self.controls.busy(question is not None)
        try:
            found = await run.io_bound(_quietly, do)
        finally:
            self.busy, self.progress = False, ""
            self.controls.free(self.picture is not None)
        if question and question.stopping.is_set():
            self.say("Stopped.")
            return None
        if isinstance(found, Exception):
            self.say(str(found))
            return None
        return True if found is None else found

    def say(self, text: str) -> None:
        """One sentence."""
        ui.notify(text, multi_line=True, close_button="Close", timeout=8000)


def _some(world: World, chance: random.Random) -> tuple[list[tuple[Picture, str]], int]:
    """Some pictures of a world, with what is shown of them; and how many were tried that cannot be read."""
    rows, found, unread = chance.sample(range(world.count), min(4 * OFFERED, world.count)), [], 0
    for row in rows:
        try:
            picture = world.picture(row)
        except DiffcernError:
            unread += 1
            continue
        found.append((picture, thumbnail(picture.image)))
        if len(found) == OFFERED:
            break
    if not found:
        raise DiffcernError("none of these pictures can be read: give another --images, or drop one of yours")
    return found, unread


def _quietly(do: Callable[[], Any]) -> Any:
    """What it returns, or its error in a sentence."""
    try:
        return do()
    except (DiffcernError, Stopped) as error:
        return error
    except Exception as error:  # of a model or a file that nobody has seen yet: the page goes on
        logging.getLogger(__name__).exception("on the page")
        return DiffcernError(f"that went wrong ({type(error).__name__}: {error}); the terminal says more")
