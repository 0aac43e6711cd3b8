"""The first two stages of SDA (arXiv 2406.04295): images from a generator, and the same purified as targets will be.

Each stage leaves files, and skips what is there: an interrupted run goes on, and ends with the files of one that was
not, whoever made them (`run/executors.py`). Knows nothing about what the images are to show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffcern.alignment import ALIGNED, GENERATED
from diffcern.data import decode, encode_png
from diffcern.files import write_whole
from diffcern.priors import Prior
from diffcern.purifier import Purifier
from diffcern.run.executors import Executor, Make
from diffcern.sampling import sample
from diffcern.types import Condition
from diffcern.watching import Report


@dataclass(frozen=True)
class Batch:
    """Images that are made side by side. stage: the folder of what they become."""

    stage: str
    ids: tuple[str, ...]


@dataclass(frozen=True)
class Studio:
    """Where batches are made. folder: of the alignment, where generated images are read from. told: the generator's
    condition for some ids, a row for each. sampling: options of `sample`."""

    folder: Path
    told: Callable[[Sequence[str]], Condition]
    generator: Prior
    purifier: Purifier
    sampling: Mapping[str, Any]
    seed: int

    def __call__(self, batch: Batch) -> list[bytes]:
        """PNG files, one for each id. Raises DiffcernError as `sample` and `purify` do."""
        if batch.stage == GENERATED:
            images = self.generator.decode(
                sample(self.generator, batch.ids, self.told(batch.ids), **self.sampling, seed=self.seed)
            )
        else:
            device = self.purifier.prior.device
            given = [decode(file_of(self.folder / GENERATED, id), id).to(device) for id in batch.ids]
            images = self.purifier(given, batch.ids, self.seed)
        return [encode_png(image) for image in images.cpu()]


def synthesise(
    folder: Path,
    ids: Sequence[str],
    make: Make[Batch, list[bytes]],
    executor: Executor,
    *,
    resynthesis: bool,
    batch_size: int,
    report: Report,
) -> Path:
    """An image for each id, generated and, with resynthesis, purified: the folder of the last ones.

    make: a `Studio`, where the executor needs one. batch_size: images at a time.
    """
    stages = {GENERATED: "generating", **({ALIGNED: "purifying"} if resynthesis else {})}
    for stage, what in stages.items():
        fill(folder, stage, ids, make, executor, batch_size, lambda done, what=what: report(done, len(ids), what))  # type: ignore[misc]
    return folder / [*stages][-1]


def fill(
    folder: Path,
    stage: str,
    ids: Sequence[str],
    make: Make[Batch, list[bytes]],
    executor: Executor,
    batch_size: int,
    report: Callable[[int], None],
) -> None:
    """A PNG file for each id that has none yet. report: hears how many there are.

    Batches are cut before looking at what is there: after an interruption an image is made beside the same others,
    and is the same to the last bit.
    """
    batches = [Batch(stage, tuple(ids[first : first + batch_size])) for first in range(0, len(ids), batch_size)]
    missing = {batch: {id for id in batch.ids if not file_of(folder / stage, id).exists()} for batch in batches}
    todo = [batch for batch in batches if missing[batch]]
    done = len(ids) - sum(len(batch.ids) for batch in todo)

    def finished(batch: Batch, pictures: Sequence[bytes]) -> None:
        nonlocal done
        for id, png in zip(batch.ids, pictures, strict=True):
            if id in missing[batch]:
                file_of(folder / stage, id).parent.mkdir(parents=True, exist_ok=True)
                write_whole(file_of(folder / stage, id), png)
        done += len(batch.ids)
        report(done)

    report(done)
    if todo:
        executor.map(make, todo, finished)


def file_of(folder: Path, id: str) -> Path:
    """Where the image of that id is."""
    return folder / f"{id}.png"
