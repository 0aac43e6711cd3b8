"""SDA's three stages (arXiv 2406.04295): generate labelled images, purify them as targets will be, fine-tune on them.

Each leaves files, and skips what is there: an interrupted run goes on, and ends with the files of one that was not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from diffcern.alignment import ALIGNED, GENERATED, PREDICTOR, Alignment
from diffcern.data import ImageFolder, decode, encode_png
from diffcern.data.folder import some
from diffcern.errors import UsageError
from diffcern.files import write_whole
from diffcern.predictors import Predictor
from diffcern.predictors.adapted import CONFIG, save_adapted
from diffcern.priors import Prior
from diffcern.purifier import Purifier
from diffcern.purify import sample
from diffcern.train.finetune import Recipe, Report, finetune
from diffcern.train.loop import CHECKPOINT


def align(
    folder: Path,
    alignment: Alignment,
    predictor: Predictor,
    generator: Prior,
    purifier: Purifier,
    *,
    batch_size: int,
    report: Report,
) -> list[float]:
    """All stages into the folder: the validation losses of the fine-tuning, empty where it had ended before.

    batch_size: images at a time while generating and purifying. Raises UsageError, before anything is written, for
    classes that the generator does not know; DiffcernError as `Alignment.begin`, `purify` and `finetune`.
    """
    classes = class_indices(generator, alignment.classes)
    alignment.begin(folder)
    ids = [f"{name}/{index}" for name in alignment.classes for index in range(alignment.per_class)]
    hypotheses = generator.hypotheses()

    def generated(batch: Sequence[str]) -> Tensor:
        condition = hypotheses[[classes[id.rpartition("/")[0]] for id in batch]]
        options = {**alignment.sampling, "seed": alignment.seed, "rows": batch_size}
        return generator.decode(sample(generator, batch, condition, **options))

    def purified(batch: Sequence[str]) -> Tensor:
        images = [decode(_file(folder / GENERATED, id), id).to(purifier.prior.device) for id in batch]
        return purifier(images, batch, alignment.seed)

    fill(folder / GENERATED, ids, generated, batch_size, lambda done, total: report(done, total, "generating"))
    if alignment.resynthesis:
        fill(folder / ALIGNED, ids, purified, batch_size, lambda done, total: report(done, total, "purifying"))
    place = folder / PREDICTOR
    if (place / CONFIG).exists():
        return []
    source = folder / (ALIGNED if alignment.resynthesis else GENERATED)
    dataset = ImageFolder(source, labelled=True, class_names=alignment.classes)
    recipe = Recipe(**alignment.recipe)
    adapted, losses = finetune(predictor, dataset, recipe, place, seed=alignment.seed, report=report)
    save_adapted(adapted, alignment.predictor, place)
    (place / CHECKPOINT).unlink(missing_ok=True)
    return losses


def class_indices(generator: Prior, classes: Sequence[str]) -> dict[str, int]:
    """The generator's index of each class. Raises UsageError for one that it, or a file system, does not know."""
    known = list(generator.class_names)
    missing = [name for name in classes if name not in known]
    if missing:
        raise UsageError(
            f"the generator does not know {len(missing)} of the predictor's {len(classes)} classes "
            f"({some(missing)}); it knows {some(known) or 'none'}: give --labels, --class-map or another --generator"
        )
    unfit = [name for name in classes if not name or "/" in name or name.startswith(".")]
    if unfit:
        raise UsageError(f"classes become folders, and no folder can be called {some(unfit)}: leave it out of --labels")
    return {name: known.index(name) for name in classes}


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
        missing = {id for id in batch if not _file(folder, id).exists()}
        if missing:
            for id, image in zip(batch, make(batch).cpu(), strict=True):
                if id in missing:
                    _file(folder, id).parent.mkdir(parents=True, exist_ok=True)
                    write_whole(_file(folder, id), encode_png(image))
        report(first + len(batch), len(ids))


def _file(folder: Path, id: str) -> Path:
    return folder / f"{id}.png"
