"""What one visitor tries: a picture, a shift, and methods that answer; stopped when the visitor says so."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from diffcern.app.worlds import World
from diffcern.data import decode
from diffcern.explaining import Explanation, Watched
from diffcern.fingerprints import content_id
from diffcern.types import Inputs
from diffcern.watching import watching

LARGEST = 20_000_000  # bytes of an upload
SIDE = 1024  # pixels to which uploads are shrunk
AT_WORK = threading.Semaphore(1)  # one visitor's work at a time: it takes all cores


class Stopped(Exception):
    """The visitor said so."""


@dataclass(frozen=True)
class Answer:
    """output: logits or a map; evaluations: of the denoiser; trace: the loss at each step; told: numbers in words."""

    method: str
    output: Tensor
    evaluations: int
    seconds: float
    trace: tuple[float, ...] = ()
    told: str = ""

    @property
    def probabilities(self) -> Tensor:
        return torch.softmax(self.output.float(), 0)


@dataclass
class Trial:
    """image: as it was given, `[3, H, W]`; target: the index of the true class, -1 where nobody knows."""

    world: World
    image: Tensor | None = None
    id: str = ""
    target: int = -1
    shift: str = "clean"
    severity: int = 4
    stopping: threading.Event = field(default_factory=threading.Event)

    def choose(self, row: int) -> None:
        """An image of the world."""
        sample = self.world.images[row]
        self.image, self.id, self.target = sample.image, sample.id, sample.target

    def upload(self, content: bytes, name: str) -> None:
        """A file of the visitor's. Raises UnreadableImage."""
        self.image = decode(content, name, SIDE)
        self.id, self.target = content_id(self.image), -1

    @property
    def shown(self) -> Tensor:
        """The picture under its shift. Raises UnreadableImage where it is too small for that."""
        assert self.image is not None  # one was chosen
        return self.world.shifted(self.image, self.shift, self.severity, self.id)

    def source(self) -> Answer:
        """What the predictor says by itself."""
        begin = time.perf_counter()
        with torch.no_grad():
            output = self.world.models.predictor(self.shown[None].to(self.world.models.device))[0]  # type: ignore[misc]
        return Answer("source", output.cpu(), 0, time.perf_counter() - begin)

    def ask(self, name: str, heard: Callable[[int], None]) -> Answer:
        """A method's answer. heard: of evaluations of the denoiser, so far. Raises Stopped, and what methods raise."""
        count = 0

        def tell(rows: int) -> None:
            nonlocal count
            if self.stopping.is_set():
                raise Stopped
            count += rows
            heard(count)

        with AT_WORK, watching(tell):
            if self.stopping.is_set():
                raise Stopped
            method, begin = self.world.method(name), time.perf_counter()
            inputs = Inputs(self.shown[None].to(self.world.models.device), [self.id])
            answer, _ = method.step(method.init(), inputs, 0)
        cost = answer.costs[0]
        trace = tuple(answer.trace[0]) if answer.trace else ()
        told = _words(answer.notes[0]) if answer.notes else ""
        return Answer(name, answer.output[0].cpu(), cost.nfe_forward, time.perf_counter() - begin, trace, told)

    def explain(
        self, rows: list[int], draws: int, heard: Callable[[Explanation, int], None]
    ) -> tuple[Explanation, Tensor]:
        """Of these classes, and the image as the prior is shown it. heard: of what it comes to so far, after every
        fourth draw. Raises Stopped."""
        models = self.world.models
        prior, predictor = models.prior, models.predictor
        assert prior is not None
        assert predictor is not None
        with AT_WORK, torch.no_grad():
            latents = prior.latents(predictor.view(self.shown[None].to(models.device)))
            hypotheses = models.task.hypotheses(prior.device)[rows]  # type: ignore[attr-defined]
            watched = Watched(prior, latents, hypotheses, self.id, draws=draws)
            for done in watched:
                if self.stopping.is_set():
                    raise Stopped
                if done % 4 == 0:
                    heard(watched.now, watched.evaluations)
            return watched.now, prior.decode(latents)[0].cpu().clamp(0, 1)


def _words(notes: dict[str, Any]) -> str:
    """What a method has to say of its answer."""
    said = []
    if "margin" in notes:
        said.append(f"margin {notes['margin']:.3g} ± {notes.get('margin_standard_error', 0):.2g}")
    if "view_nats" in notes:
        turned = f"turned by {notes['view_turn']:.0f}°, " if notes["view_turn"] else ""
        gain = f"contrast × {notes['view_gain']:.2g}, " if abs(notes["view_gain"] - 1) > 0.01 else ""
        said.append(f"{turned}{gain}{notes['view_nats']:.0f} nats likelier" if turned or gain else "left as it is")
    return ", ".join(said)
