"""What one visitor tries: a picture under a shift, and methods that answer; stopped when the visitor says so."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from diffcern.app.worlds import SIDE, World
from diffcern.data import UnreadableImage, decode
from diffcern.errors import DiffcernError
from diffcern.explaining import Explanation, Watched
from diffcern.fingerprints import content_id
from diffcern.types import Inputs
from diffcern.watching import watching

LARGEST = 20_000_000  # bytes of an upload
TURN = 0.1  # seconds between two looks at whether it is this visitor's turn
AT_WORK = threading.Lock()  # one visitor's work at a time: it takes all cores


class Stopped(Exception):
    """The visitor said so."""


@dataclass(frozen=True)
class Answer:
    """output: logits or a map; evaluations: of the denoiser; trace: the loss at each step; told: numbers in words."""

    method: str
    output: Tensor
    evaluations: int
    seconds: float
    trace: Sequence[float] = ()
    told: str = ""

    @property
    def probabilities(self) -> Tensor:
        return torch.softmax(self.output.float(), 0)


@dataclass(frozen=True)
class Picture:
    """image: as it was given, `[3, H, W]`; right: the classes that are right for it, empty where nobody knows; name: of
    the file, where it came as one."""

    image: Tensor
    id: str
    right: frozenset[int] = frozenset()
    truth: str = ""
    name: str = ""

    @classmethod
    def of(cls, world: World, row: int) -> Picture:
        """An image of the world. Raises UnreadableImage."""
        sample = world.images[row]
        right = world.right(sample.target)
        truth = world.images.class_names[sample.target] if right else ""
        return cls(sample.image, sample.id, right, truth)

    @classmethod
    def uploaded(cls, content: bytes, name: str) -> Picture:
        """A file of the visitor's. Raises UnreadableImage."""
        image = decode(content, name, SIDE)
        return cls(image, content_id(image), name=name)


@dataclass(frozen=True)
class Question:
    """A picture under a shift as it was when somebody asked: nothing that is changed later changes what is answered."""

    world: World
    picture: Picture
    shown: Tensor
    stopping: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def of(cls, world: World, picture: Picture, shift: str, severity: int) -> Question:
        """Raises UnreadableImage where the picture is too small for the shift."""
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
            begin = time.perf_counter()
            output = self.world.models.predictor(self.shown[None].to(self.world.models.device))[0]  # type: ignore[misc]
            return Answer("source", output.cpu(), 0, time.perf_counter() - begin)

    def ask(self, name: str, heard: Callable[[int], None]) -> Answer:
        """A method's answer. heard: of evaluations of the denoiser, so far. Raises Stopped, and what methods raise."""
        count = 0

        def tell(rows: int) -> None:
            nonlocal count
            self.check()
            count += rows
            heard(count)

        with self._turn(), watching(tell):
            method, begin = self.world.method(name), time.perf_counter()
            inputs = Inputs(self.shown[None].to(self.world.models.device), [self.picture.id])
            answer, _ = method.step(method.init(), inputs, 0)
            seconds = time.perf_counter() - begin
        trace = answer.trace[0] if answer.trace else ()
        told = _words(answer.notes[0]) if answer.notes else ""
        return Answer(name, answer.output[0].cpu(), answer.costs[0].nfe_forward, seconds, trace, told)

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
        said.append(f"{changed}{nats:.0f} nats likelier" if changed else "left as it is")
    return ", ".join(said)
