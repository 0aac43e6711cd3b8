"""Trains a small predictor with EMA and the named augmentations; for the losses see `tasks/`."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from diffcern.configs import check_config
from diffcern.data import Dataset
from diffcern.errors import UsageError
from diffcern.predictors.base import Predictor
from diffcern.predictors.native import NativePredictorConfig, native_predictor, save_predictor
from diffcern.rng import generator
from diffcern.tasks import TASKS
from diffcern.train.augmentations import augment, augmentation_names, mirrored, mirrors
from diffcern.train.images import pixel_statistics, read_table
from diffcern.train.loop import Outcome, check_out, train
from diffcern.train.recipes import PredictorRecipe, Regime
from diffcern.watching import Report, unheard

NARROW = 8  # channels, of which a vector of AVX2 holds so many


def train_predictor(
    dataset: Dataset,
    recipe: PredictorRecipe,
    regime: Regime,
    folder: Path,
    *,
    device: torch.device,
    autocast: bool = False,
    report: Report = unheard,
) -> tuple[Predictor, Outcome]:
    """Trains (or goes on training) a predictor in `folder` and saves its averaged weights.

    Raises UsageError for a recipe that cannot be built, DiffcernError for unusable data or a folder that holds other
    things.
    """
    augmentations = augmentation_names(recipe.augmentation)
    check_out(folder)
    if recipe.task not in TASKS:
        raise UsageError(f"--task is one of {', '.join(TASKS)}, not {recipe.task!r}")
    task = TASKS[recipe.task]
    recipe = replace(recipe, architecture=recipe.architecture or ("small-unet" if task.kind.dense else "small-resnet"))
    flip = task.kind.dense and mirrors(recipe.augmentation)
    names = tuple(getattr(dataset, "mask_names", ()) if task.kind.dense else dataset.class_names)
    names = names if task.kind.classes else ()
    if not names and task.kind.classes:
        raise UsageError(f"{dataset.name} does not name its classes: give --class-names")
    table = read_table(dataset, recipe.image_size, task.kind.truth)
    some, mean, std = pixel_statistics(table.images, regime.seed)
    config = NativePredictorConfig(
        recipe.architecture,
        recipe.image_size,
        names,
        tuple(round(value, 4) for value in mean.tolist()),
        tuple(round(value, 4) for value in std.tolist()),
        recipe.width,
        recipe.depth,
        recipe.task,
    )
    check_config(config)
    torch.manual_seed(regime.seed)  # the initial weights
    predictor = native_predictor(config).to(device).train()
    if device.type != "cpu" or not _narrow(predictor):
        predictor.to(memory_format=torch.channels_last)  # faster convolutions

    def loss_at(step: int) -> Tensor:
        rng = generator(regime.seed, "predictor", step)
        index = torch.randint(len(table.targets), (regime.batch_size,), generator=rng)
        images, targets = table.batch(index, device)
        if task.kind.dense:
            images, targets = mirrored(images, table.truths(index, device), flip, rng)
        else:
            images = augment(images, augmentations, rng)
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            output = predictor(images)
        return task.loss(output.float(), targets, recipe.label_smoothing)

    settings = {"dataset": dataset.name, "size": len(dataset), "names": names, **asdict(recipe)}
    outcome = train(predictor, loss_at, regime, folder, settings, report)
    # BatchNorm's running statistics belong to the raw weights: measure them again for the averaged ones.
    batches = ((table.batch(index, device)[0],) for index in some.split(256))
    update_bn(batches, predictor, device)
    predictor.eval()
    save_predictor(predictor, config, folder)
    return predictor, outcome


def _narrow(model: nn.Module) -> bool:
    """Whether channels must stay first: with channels last and on a CPU of AVX2 without AVX-512, the backward pass of
    1 x 1 convolutions of few channels writes beyond its memory, and the process is gone (seen with torch 2.14.1)."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    return any(layer.kernel_size == (1, 1) and layer.in_channels < NARROW for layer in layers)
