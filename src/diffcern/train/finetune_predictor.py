"""A predictor of any kind fine-tuned on images with labels or maps: recipes, and what an epoch shows."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from diffcern.copies import duplicate
from diffcern.data import Dataset, subset
from diffcern.errors import DiffcernError
from diffcern.predictors.adapted import CONFIG, save_adapted
from diffcern.predictors.base import Predictor
from diffcern.tasks import TASKS
from diffcern.train.augmentations import mirrors
from diffcern.train.finetune import Descent, fine_tune
from diffcern.train.views import Look, MapViews, Views, fitted, randomised
from diffcern.watching import Report

Seen = Views | MapViews


@dataclass(frozen=True)
class Recipe:
    """augmentation: of `train/images.py` ("affine"), "timm" for random crops and mirrors as timm makes them, or a
    RandAugment of timm ("rand-...") after these; erasing is a probability. Maps are mirrored with their images or left
    as they are: "flip" or "none", and nothing is erased. The rest as for `Descent`."""

    epochs: int
    learning_rate: float
    weight_decay: float
    augmentation: str
    erasing: float = 0.0
    warmup: float = 1 / 3
    clip: float = 5.0
    label_smoothing: float = 0.1
    batch_size: int = 64
    optimizer: str = "adamw"
    momentum: float = 0.9

    def __post_init__(self) -> None:
        """Raises UsageError as `Descent`."""
        _ = self.descent

    @property
    def descent(self) -> Descent:
        names = ("epochs", "batch_size", "learning_rate", "weight_decay", "warmup", "clip", "optimizer", "momentum")
        return Descent(**{name: getattr(self, name) for name in names})

    def view(self, predictor: Predictor, shape: torch.Size) -> Look:
        """What training sees of an image."""
        if self.augmentation == "timm" or self.augmentation.startswith("rand-"):
            policy = None if self.augmentation == "timm" else self.augmentation
            return randomised(predictor, shape, policy, self.erasing)
        return fitted(predictor, shape, self.augmentation)


RECIPES = {
    "paper": Recipe(15, 2e-5, 1e-8, "rand-m9-n2-mstd0.5-inc1", 0.25),  # arXiv 2406.04295, for all but ResNet-50
    "paper-resnet50": Recipe(15, 5e-4, 1e-8, "timm", optimizer="sgd"),
    "small": Recipe(10, 3e-4, 0.01, "affine", warmup=0.1),  # ours: for images of 16 to 64 pixels
}
MAP_RECIPES = {  # for segmentation and depth
    "small": Recipe(10, 3e-4, 0.01, "flip", warmup=0.1, label_smoothing=0.0, batch_size=16),  # ours
}


class ImageLessons:
    """`Lessons` of images with their truths, for a copy of a predictor.

    A tenth of the images (at least one; seeded, by class) is held out for validation. BatchNorm is trained as
    published, by batch statistics. Augmentations are drawn from (seed, epoch) and the images' ids.
    """

    def __init__(self, base: Predictor, dataset: Dataset, recipe: Recipe, seed: int) -> None:
        if len(dataset) < 2:
            raise DiffcernError("fine-tuning needs two images, one of them to validate on: make more of each class")
        held = max(1, len(dataset) // 10)
        validation, training = subset(dataset, held, seed), subset(dataset, None, seed, skip=held)
        shape = dataset[0].image.shape
        self._task, self._recipe, self._seed = TASKS[base.task], recipe, seed
        self._plain: Seen
        self._seen: Callable[..., Seen]
        if self._task.kind.dense:
            self._plain, self._seen = MapViews(validation), partial(MapViews, training, mirrors(recipe.augmentation))
        else:
            self._plain = Views(validation, fitted(base, shape))
            self._seen = partial(Views, training, recipe.view(base, shape))
        self.predictor = duplicate(base).requires_grad_(True)
        self.model, self.count = self.predictor.model, len(training)

    def losses(self, epoch: int, batches: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        views = self._seen(("view", epoch), self._seed)
        self.predictor.train()
        for images, targets in _loader(views, self.predictor, batch_sampler=batches):
            output = self.predictor(images.to(self.predictor.mean.device))
            yield self._task.loss(output, targets.to(output.device), self._recipe.label_smoothing)

    def validation_loss(self) -> float:
        return loss_on(self.predictor, self._plain, min(self._recipe.batch_size, self.count))


def finetune(
    base: Predictor, dataset: Dataset, recipe: Recipe, folder: Path, *, seed: int, report: Report
) -> tuple[Predictor, list[float]]:
    """A fine-tuned copy of the predictor, and the validation losses: before any epoch, and after each.

    dataset: images with labels, or with the masks or depths that the predictor answers; these, and images with them,
    are of one size. Goes on from the checkpoint in `folder`. Raises as `fine_tune`, and UsageError for augmentations
    that maps do not follow.
    """
    lessons = ImageLessons(base, dataset, recipe, seed)
    losses = fine_tune(lessons, recipe.descent, folder, seed=seed, report=report)
    return lessons.predictor.eval().requires_grad_(False), losses


@dataclass(frozen=True)
class PredictorLearner:
    """A `Learner` of SDA. name: by which the predictor is loaded again, under its new weights."""

    predictor: Predictor
    name: str
    recipe: Recipe

    def finished(self, place: Path) -> bool:
        return (place / CONFIG).exists()

    def learn(self, dataset: Dataset, place: Path, *, seed: int, report: Report) -> list[float]:
        adapted, losses = finetune(self.predictor, dataset, self.recipe, place, seed=seed, report=report)
        save_adapted(adapted, self.name, place)
        return losses


@torch.no_grad()
def loss_on(predictor: Predictor, views: Seen, batch_size: int) -> float:
    """The mean loss over the images (cross-entropy in nats), in eval mode; infinite where it is not a number."""
    predictor.eval()
    total = 0.0
    for images, truths in _loader(views, predictor, batch_size=batch_size):
        output = predictor(images.to(predictor.mean.device))
        total += TASKS[predictor.task].loss(output, truths.to(output.device)).item() * len(images)
    return total / len(views) if math.isfinite(total) else math.inf


def _loader(views: Seen, predictor: Predictor, **batches: Any) -> DataLoader[Any]:
    """Processes that make the views only where the predictor leaves the processor to them."""
    workers = 0 if predictor.mean.device.type == "cpu" else min(8, os.cpu_count() or 1)
    return DataLoader(views, num_workers=workers, **batches)
