"""SDA (Synthetic-Domain Alignment, Guo et al. 2024, arXiv 2406.04295): images that a generator makes of known truths,
the same purified as targets will be, and a model fine-tuned on these.

What the images show is a `Material`, what learns is a `Learner`; this file knows neither. For how images are made see
`train/stages.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from diffcern.alignment import PREDICTOR, Alignment
from diffcern.priors import Prior
from diffcern.run.executors import Executor, Make
from diffcern.train.loop import CHECKPOINT
from diffcern.train.stages import Batch, synthesise
from diffcern.types import Condition
from diffcern.watching import Report

Telling = Callable[[Sequence[str]], Condition]  # the generator's condition for some ids, a row for each


class Material(Protocol):
    """What images are to show. ids: of the images, which name their files. stated: the fields of an `Alignment` that
    say what it is. digest: of what these fields do not hold, by what it is, for the alignment's fingerprints."""

    @property
    def ids(self) -> Sequence[str]: ...
    @property
    def stated(self) -> Mapping[str, Any]: ...
    @property
    def digest(self) -> Mapping[str, str]: ...

    def telling(self, generator: Prior) -> Telling:
        """How the generator is told. Raises UsageError where it cannot be told that."""
        ...

    def write(self, folder: Path) -> None:
        """What is kept of it beside the images; what is there is left."""
        ...

    def dataset(self, images: Path) -> Any:
        """The images in that folder with what is true of them, as the learner takes them."""
        ...


class Learner(Protocol):
    """What is fine-tuned."""

    def finished(self, place: Path) -> bool:
        """Whether that folder holds what `learn` leaves."""
        ...

    def learn(self, dataset: Any, place: Path, *, seed: int, report: Report) -> list[float]:
        """Fine-tunes on a material's data set and saves the model; its validation losses, before any epoch and after
        each. Goes on from a checkpoint in the folder."""
        ...


def align(
    folder: Path,
    alignment: Alignment,
    material: Material,
    learner: Learner,
    make: Make[Batch, list[bytes]],
    executor: Executor,
    *,
    batch_size: int,
    report: Report,
) -> list[float]:
    """All stages into the folder: the validation losses of the fine-tuning, empty where it had ended before.

    make, executor: what makes images, and where. batch_size: images at a time while generating and purifying. Raises
    DiffcernError as `Alignment.begin`, `Studio` and `fine_tune`.
    """
    alignment.begin(folder)
    material.write(folder)
    how: dict[str, Any] = {"resynthesis": alignment.resynthesis, "batch_size": batch_size, "report": report}
    images = synthesise(folder, material.ids, make, executor, **how)
    place = folder / PREDICTOR
    if learner.finished(place):
        return []
    losses = learner.learn(material.dataset(images), place, seed=alignment.seed, report=report)
    (place / CHECKPOINT).unlink(missing_ok=True)
    return losses
