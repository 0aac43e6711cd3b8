"""Trains a small classifier with cross-entropy, label smoothing, EMA and the named augmentations."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn

from diffcern.data import Dataset
from diffcern.predictors.base import Predictor
from diffcern.predictors.native import NativePredictorConfig, native_predictor, save_predictor
from diffcern.rng import generator
from diffcern.train.images import augment, augmentation_names, read_table
from diffcern.train.loop import Outcome, Schedule, check_out, train


@dataclass(frozen=True)
class PredictorRecipe:
    """What to train. architecture: "small-resnet" or "timm:NAME"."""

    architecture: str = "small-resnet"
    image_size: int = 32
    width: int = 16
    depth: int = 2
    augmentation: str = "none"
    label_smoothing: float = 0.0


def train_predictor(
    dataset: Dataset,
    recipe: PredictorRecipe,
    schedule: Schedule,
    folder: Path,
    *,
    device: torch.device,
    autocast: bool = False,
) -> tuple[Predictor, Outcome]:
    """Trains (or goes on training) a predictor in `folder` and saves its averaged weights.

    Raises UsageError for a recipe that cannot be built, DiffcernError for unusable data or a folder that holds other
    things.
    """
    augmentations = augmentation_names(recipe.augmentation)
    check_out(folder)
    table = read_table(dataset, recipe.image_size)
    some = torch.randperm(len(table.targets), generator=generator(schedule.seed, "statistics"))[:10_240]
    pixels = table.images[some].float().div(255)
    mean, std = pixels.mean((0, 2, 3)), pixels.std((0, 2, 3)).clamp(min=1e-3)
    config = NativePredictorConfig(
        recipe.architecture,
        recipe.image_size,
        tuple(dataset.class_names),
        tuple(round(value, 4) for value in mean.tolist()),
        tuple(round(value, 4) for value in std.tolist()),
        recipe.width,
        recipe.depth,
    )
    torch.manual_seed(schedule.seed)  # the initial weights
    predictor = native_predictor(config).to(device).train()

    def loss_at(step: int) -> Tensor:
        rng = generator(schedule.seed, "predictor", step)
        index = torch.randint(len(table.targets), (schedule.batch_size,), generator=rng)
        images, targets = table.batch(index, device)
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            logits = predictor(augment(images, augmentations, rng))
        return F.cross_entropy(logits.float(), targets, label_smoothing=recipe.label_smoothing)

    settings = {"dataset": dataset.name, "size": len(dataset), **asdict(recipe)}
    outcome = train(predictor, loss_at, schedule, folder, settings)
    # BatchNorm's running statistics belong to the raw weights: measure them again for the averaged ones.
    batches = ((table.batch(index, device)[0],) for index in some.split(256))
    update_bn(batches, predictor, device)
    predictor.eval()
    save_predictor(predictor, config, folder)
    return predictor, outcome
