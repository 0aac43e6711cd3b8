"""What one visitor tries: a picture under a shift, and methods that answer; stopped when the visitor says so."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from diffcern.app.worlds import SIDE, Picture, World
from diffcern.data import UnreadableImage, decode
from diffcern.errors import DiffcernError
from diffcern.explaining import Explanation, Watched
from diffcern.fingerprints import content_id
from diffcern.types import Inputs
from diffcern.watching import Interim, looking_on, watching

LARGEST = 20_000_000  # bytes of an upload
TURN = 0.1  # seconds between two looks at whether it is this visitor's turn
AT_WORK = threading.Lock()  # one visitor's work at a time: it takes all cores


class Stopped(Exception):
    """The visitor said so."""


@dataclass(frozen=True)
class Answer:
    """Of a method, at its end or on its way. output: logits or a map, None while it says nothing; evaluations: of the
    denoiser; trace: the loss at each step; told: numbers in words; seen: what it makes of the image, `[3, h, w]`."""

    output: Tensor | None = None
    evaluations: int = 0
    seconds: float = 0.0
    trace: tuple[float, ...] = ()
    told: str = ""
    seen: Tensor | None = None


def uploaded(content: bytes, name: str) -> Picture:
    """A file of the visitor's. Raises UnreadableImage."""
    image = decode(content, name, SIDE)
    return Picture(image, content_id(image), name=name)


@dataclass(frozen=True)
class Question:
    """A picture under a shift as it was when somebody asked: nothing that is changed later changes what is answered.
    world: told the labels of then."""

    world: World
    picture: Picture
    shown: Tensor
    stopping: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def of(cls, world: World, picture: Picture, shift: str, severity: int, labels: Sequence[str] = ()) -> Question:
        """labels: for a world that has some. Raises UnreadableImage where the picture is too small for the shift, and
        DiffcernError for fewer than two labels."""
        if world.labels:
            if len(labels) < 2:
                raise DiffcernError("there is nothing to tell apart: write two labels or more, one a line")
            world = world.told(labels)
        try:
            return cls(world, picture, world.shifted(picture.image, shift, severity, picture.id))
        except UnreadableImage as error:
            raise UnreadableImage(picture.name or picture.id, error.reason) from error

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """While this lasts, it is this visitor's. Raises Stopped, before and after."""
        while not AT_WORK.acquire(timeout=TURN):
            self.check()
        try:
            self.check()
            yield
            self.check()
        finally:
            AT_WORK.release()

    def check(self) -> None:
        """Raises Stopped where the visitor said so."""
        if self.stopping.is_set():
            raise Stopped

    def source(self) -> Answer:
        """What the predictor says by itself."""
        with self._turn(), torch.no_grad():
            models, begin = self.world.models, time.perf_counter()
            output = models.predictor(self.shown[None].to(models.device))[0]  # type: ignore[misc]
            return Answer(output.cpu(), seconds=time.perf_counter() - begin)

    def ask(self, name: str, heard: Callable[[Answer], None]) -> Answer:
        """A method's answer. heard: what it has come to, at every evaluation of the denoiser and whenever it would say
        something else. Raises Stopped, and what methods raise."""
        now, begin = Answer(), time.perf_counter()

        def moved(**to: Any) -> None:
            nonlocal now
            self.check()
            now = replace(now, seconds=time.perf_counter() - begin, **to)
            heard(now)

        def evaluated(rows: int) -> None:
            moved(evaluations=now.evaluations + rows)

        def come_to(interim: Interim) -> None:
            output = now.output if interim.output is None else interim.output.cpu()
            seen = now.seen if interim.image is None else interim.image.float().cpu().clamp(0, 1)
            trace = now.trace if interim.loss is None else (*now.trace, interim.loss)
            moved(output=output, seen=seen, trace=trace)

        with self._turn(), watching(evaluated), looking_on(come_to):
            method, begin = self.world.method(name), time.perf_counter()
            inputs = Inputs(self.shown[None].to(self.world.models.device), [self.picture.id])
            answer, _ = method.step(method.init(), inputs, 0)
            seconds = time.perf_counter() - begin
        trace = tuple(answer.trace[0]) if answer.trace else ()
        told = _words(answer.notes[0]) if answer.notes else ""
        return Answer(answer.output[0].cpu(), answer.costs[0].nfe_forward, seconds, trace, told, now.seen)

    def explain(
        self, rows: Sequence[int], draws: int, heard: Callable[[Explanation, int], None]
    ) -> tuple[Explanation, Tensor, int]:
        """Of these classes; the image as the prior is shown it; the evaluations. heard: of what it comes to so far,
        after every fourth draw. Raises Stopped, and DiffcernError where there are no two classes."""
        models = self.world.models
        prior, predictor = models.prior, models.predictor
        assert prior is not None
        assert predictor is not None
        if len(rows) < 2:
            raise DiffcernError("there is one class alone, and nothing to tell it apart from")
        with self._turn(), torch.no_grad():
            latents = prior.latents(predictor.view(self.shown[None].to(models.device)))
            hypotheses = models.task.hypotheses(prior.device)[list(rows)]  # type: ignore[attr-defined]
            watched = Watched(prior, latents, hypotheses, self.picture.id, draws=draws)
            for done in watched:
                self.check()
                if done % 4 == 0:
                    heard(watched.now, watched.evaluations)
            return watched.now, prior.decode(latents)[0].cpu().clamp(0, 1), watched.evaluations


def _words(notes: dict[str, Any]) -> str:
    """What a method has to say of its answer."""
    said = []
    if "margin" in notes:
        said.append(f"margin {notes['margin']:.3g} ± {notes.get('margin_standard_error', 0):.2g}")
    if "view_nats" in notes:
        turned = f"turned by {notes['view_turn']:.0f}°, " if notes["view_turn"] else ""
        gain = f"contrast × {notes['view_gain']:.2g}, " if abs(notes["view_gain"] - 1) > 0.01 else ""
        haze = "without haze, " if notes.get("view_veil") else ""
        hidden = f"{100 * notes['view_hidden']:.0f} % hidden, " if "view_hidden" in notes else ""
        changed, nats = f"{turned}{haze}{gain}{hidden}", notes["view_nats"] + notes.get("view_hidden_nats", 0.0)
        said.append(f"{changed}{nats:.0f} nats likelier" if changed else "no other view is likelier")
    return ", ".join(said)
