"""Fine-tunes a predictor of any kind on images with labels or maps; the epoch of the lowest validation loss is kept."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers.optimization import get_cosine_schedule_with_warmup
from torch import Tensor, nn
from torch.utils.data import DataLoader

from diffcern.copies import duplicate
from diffcern.data import Dataset, subset
from diffcern.errors import DiffcernError, UsageError
from diffcern.files import reading
from diffcern.methods.base import OPTIMIZERS
from diffcern.predictors.base import Predictor
from diffcern.rng import generator
from diffcern.tasks import TASKS
from diffcern.train.images import mirrors
from diffcern.train.loop import CHECKPOINT
from diffcern.train.views import MapViews, View, Views, fitted, randomised

Report = Callable[[int, int, str], None]  # how much is done, of how much, and what
Seen = Views | MapViews


@dataclass(frozen=True)
class Recipe:
    """An optimiser by name under a cosine. augmentation: of `train/images.py` ("affine"), "timm" for random crops and
    mirrors as timm makes them, or a RandAugment of timm ("rand-...") after these; erasing is a probability. Maps are
    mirrored with their images or left as they are: "flip" or "none", and nothing is erased."""

    epochs: int
    learning_rate: float
    weight_decay: float
    augmentation: str
    erasing: float = 0.0
    warmup: float = 1 / 3  # fraction of the steps
    clip: float = 5.0  # gradient norm
    label_smoothing: float = 0.1
    batch_size: int = 64
    optimizer: str = "adamw"
    momentum: float = 0.9  # of SGD

    def __post_init__(self) -> None:
        """Raises UsageError for rates that no optimiser could follow."""
        if not (0 <= self.learning_rate < math.inf and 0 <= self.weight_decay < math.inf):
            raise UsageError(
                f"learning rate and weight decay are finite and at least 0, not {self.learning_rate} and "
                f"{self.weight_decay}"
            )

    def view(self, predictor: Predictor, shape: torch.Size) -> View:
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


def finetune(
    base: Predictor, dataset: Dataset, recipe: Recipe, folder: Path, *, seed: int, report: Report
) -> tuple[Predictor, list[float]]:
    """A fine-tuned copy of the predictor, and the validation losses: before any epoch, and after each.

    dataset: images with labels, or with the masks or depths that the predictor answers; these, and images with them,
    are of one size.
    A tenth of the images (at least one; seeded, by class) is held out for validation. BatchNorm is trained as
    published, by batch statistics. After every epoch a checkpoint is written into `folder`, and running again goes on
    from it; an epoch draws its batches, augmentations and dropout from (seed, epoch) and the images' ids, so that it
    ends with the weights of a run that was never stopped. Raises DiffcernError where the loss becomes NaN or infinite,
    UsageError for augmentations that maps do not follow.
    """
    if len(dataset) < 2:
        raise DiffcernError("fine-tuning needs two images, one of them to validate on: make more of each class")
    held = max(1, len(dataset) // 10)
    validation, training = subset(dataset, held, seed), subset(dataset, None, seed, skip=held)
    shape = dataset[0].image.shape
    plain: Seen
    seen: Callable[..., Seen]
    task = TASKS[base.task]
    if not task.kind.dense:
        plain, seen = Views(validation, fitted(base, shape)), partial(Views, training, recipe.view(base, shape))
    else:
        plain, seen = MapViews(validation), partial(MapViews, training, mirrors(recipe.augmentation))
    predictor = duplicate(base).requires_grad_(True)
    parameters = list(predictor.parameters())
    options: dict[str, Any] = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    if recipe.optimizer == "sgd":
        options["momentum"] = recipe.momentum
    optimizer = OPTIMIZERS[recipe.optimizer](parameters, **options)
    size = min(recipe.batch_size, len(training))
    steps = len(training) // size  # an epoch leaves out what fills no batch
    rates = get_cosine_schedule_with_warmup(
        optimizer, int(recipe.warmup * steps * recipe.epochs), steps * recipe.epochs
    )
    parts = {"model": predictor.model, "optimizer": optimizer, "rates": rates}
    losses, best = _resume(folder / CHECKPOINT, parts) or ([loss_on(predictor, plain, size)], _weights(predictor))
    for epoch in range(len(losses), recipe.epochs + 1):
        rng = generator(seed, "fine-tuning", epoch)
        torch.manual_seed(rng.initial_seed())  # dropout and stochastic depth
        batches = torch.randperm(len(training), generator=rng)[: steps * size].view(steps, size).tolist()
        views = seen(("view", epoch), seed)
        predictor.train()
        for step, (images, targets) in enumerate(_loader(views, predictor, batch_sampler=batches)):
            output = predictor(images.to(predictor.mean.device))
            loss = task.loss(output, targets.to(output.device), recipe.label_smoothing)
            if not torch.isfinite(loss):
                raise DiffcernError(f"the loss is {loss.item()} in epoch {epoch}: give a lower --learning-rate")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, recipe.clip)
            optimizer.step()
            rates.step()
            report((epoch - 1) * steps + step + 1, steps * recipe.epochs, f"fine-tuning, loss {loss.item():.3f}")
        losses.append(loss_on(predictor, plain, size))
        best = _weights(predictor) if losses[-1] < min(losses[:-1]) else best
        _save(folder / CHECKPOINT, losses, best, parts)
    predictor.model.load_state_dict(best)
    return predictor.eval().requires_grad_(False), losses


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


def _weights(predictor: Predictor) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in predictor.model.state_dict().items()}


def _save(checkpoint: Path, losses: list[float], best: dict[str, Tensor], parts: dict[str, Any]) -> None:
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    partial = checkpoint.with_suffix(".partial")
    torch.save({"losses": losses, "best": best, **{name: part.state_dict() for name, part in parts.items()}}, partial)
    partial.replace(checkpoint)


def _resume(checkpoint: Path, parts: dict[str, Any]) -> tuple[list[float], dict[str, Tensor]] | None:
    """Puts the parts where the checkpoint left them; the losses so far and the best weights. None without one."""
    if not checkpoint.exists():
        return None
    with reading(checkpoint, "Delete it to fine-tune from the start"):
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        return list(state["losses"]), dict(state["best"])
