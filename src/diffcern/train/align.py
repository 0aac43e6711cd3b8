"""SDA (arXiv 2406.04295) for classification: images of every class, on which the predictor is fine-tuned when they are
purified; see `train/stages.py` for how they are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from diffcern.alignment import PREDICTOR, Alignment
from diffcern.data import Dataset, ImageFolder
from diffcern.data.folder import some
from diffcern.errors import UsageError
from diffcern.predictors import Predictor
from diffcern.predictors.adapted import CONFIG, save_adapted
from diffcern.priors import Prior
from diffcern.purifier import Purifier
from diffcern.train.finetune import Recipe, Report, finetune
from diffcern.train.loop import CHECKPOINT
from diffcern.train.stages import synthesise
from diffcern.types import Condition


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
    hypotheses = generator.hypotheses()

    def told(batch: Sequence[str]) -> Condition:
        return hypotheses[[classes[id.rpartition("/")[0]] for id in batch]]

    ids = [f"{name}/{index}" for name in alignment.classes for index in range(alignment.per_class)]
    images = synthesise(folder, alignment, ids, told, generator, purifier, batch_size=batch_size, report=report)
    dataset = ImageFolder(images, labelled=True, class_names=alignment.classes)
    return tune(folder, alignment, predictor, dataset, report)


def tune(folder: Path, alignment: Alignment, predictor: Predictor, dataset: Dataset, report: Report) -> list[float]:
    """The last stage, `finetune` on the images that were made: its validation losses, empty where it had ended."""
    place = folder / PREDICTOR
    if (place / CONFIG).exists():
        return []
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
