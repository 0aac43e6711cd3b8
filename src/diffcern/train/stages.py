"""The first two stages of SDA (arXiv 2406.04295): images from a generator, and the same purified as targets will be.

Each stage leaves files, and skips what is there: an interrupted run goes on, and ends with the files of one that was
not. Knows nothing about what the images are to show.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from diffcern.alignment import ALIGNED, GENERATED, Alignment
from diffcern.data import decode, encode_png
from diffcern.files import write_whole
from diffcern.priors import Prior
from diffcern.purifier import Purifier
from diffcern.sampling import sample
from diffcern.types import Condition
from diffcern.watching import Report


def synthesise(
    folder: Path,
    alignment: Alignment,
    ids: Sequence[str],
    told: Callable[[Sequence[str]], Condition],
    generator: Prior,
    purifier: Purifier,
    *,
    batch_size: int,
    report: Report,
) -> Path:
    """An image for each id, generated and, unless the alignment leaves that out, purified: the folder of the last ones.

    told: the generator's condition for some ids, a row for each. batch_size: images at a time. Raises DiffcernError as
    `sample` and `purify` do.
    """

    def generated(batch: Sequence[str]) -> Tensor:
        options = {**alignment.sampling, "seed": alignment.seed, "rows": batch_size}
        return generator.decode(sample(generator, batch, told(batch), **options))

    def purified(batch: Sequence[str]) -> Tensor:
        images = [decode(file_of(folder / GENERATED, id), id).to(purifier.prior.device) for id in batch]
        return purifier(images, batch, alignment.seed)

    fill(folder / GENERATED, ids, generated, batch_size, lambda done, total: report(done, total, "generating"))
    if not alignment.resynthesis:
        return folder / GENERATED
    fill(folder / ALIGNED, ids, purified, batch_size, lambda done, total: report(done, total, "purifying"))
    return folder / ALIGNED


def fill(
    folder: Path,
    ids: Sequence[str],
    make: Callable[[Sequence[str]], Tensor],
    batch_size: int,
    report: Callable[[int, int], None],
) -> None:
    """A PNG file for each id that has none yet.

    Batches are cut before looking at what is there: after an interruption an image is made beside the same others,
    and is the same to the last bit.
    """
    for first in range(0, len(ids), batch_size):
        batch = ids[first : first + batch_size]
        missing = {id for id in batch if not file_of(folder, id).exists()}
        if missing:
            for id, image in zip(batch, make(batch).cpu(), strict=True):
                if id in missing:
                    file_of(folder, id).parent.mkdir(parents=True, exist_ok=True)
                    write_whole(file_of(folder, id), encode_png(image))
        report(first + len(batch), len(ids))


def file_of(folder: Path, id: str) -> Path:
    """Where the image of that id is."""
    return folder / f"{id}.png"
