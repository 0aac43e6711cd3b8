"""Trains a masked autoencoder, then a head on its frozen encoder (Gandelsman et al. 2022's "ViT probing")."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from diffcern.configs import check_config
from diffcern.data import Dataset
from diffcern.predictors.base import Predictor
from diffcern.predictors.mae import MaeConfig, MaskedAutoencoder, mae_predictor, save_mae
from diffcern.rng import generator
from diffcern.train.augmentations import augment, augmentation_names
from diffcern.train.images import pixel_statistics, read_table
from diffcern.train.loop import Outcome, check_out, train
from diffcern.train.recipes import MaeRecipe, Regime
from diffcern.watching import Report, unheard

FIRST = "checkpoint.reconstruction"  # the first phase's folder within the run's, which has the second's checkpoint


def train_mae(
    dataset: Dataset,
    recipe: MaeRecipe,
    regime: Regime,
    folder: Path,
    *,
    device: torch.device,
    autocast: bool = False,
    report: Report = unheard,
) -> tuple[Predictor, Outcome, Regime]:
    """Trains (or goes on training) both phases in `folder`; returns the phase that it stopped in and its regime.

    The predictor is saved once the head is reached. Raises UsageError for a recipe that cannot be built,
    DiffcernError for unusable data or a folder that holds other things.
    """
    start = time.monotonic()
    augmentations = augmentation_names(recipe.augmentation)
    check_out(folder)
    table = read_table(dataset, recipe.image_size)
    _, mean, std = pixel_statistics(table.images, regime.seed)
    sizes = {name: value for name, value in asdict(recipe).items() if name not in ("augmentation", "head_images")}
    config = MaeConfig(
        **sizes,
        class_names=tuple(dataset.class_names),
        mean=tuple(round(value, 4) for value in mean.tolist()),
        std=tuple(round(value, 4) for value in std.tolist()),
    )
    check_config(config)
    torch.manual_seed(regime.seed)  # the initial weights
    predictor = mae_predictor(config).to(device)
    model = predictor.model
    assert isinstance(model, MaskedAutoencoder)

    def batch(phase: str, step: int) -> tuple[Tensor, Tensor, torch.Generator]:
        rng = generator(regime.seed, phase, step)
        index = torch.randint(len(table.targets), (regime.batch_size,), generator=rng)
        images, targets = table.batch(index, device)
        return predictor.prepare(augment(images, augmentations, rng)), targets, rng

    def reconstruction_loss(step: int) -> Tensor:
        images, _, rng = batch("mae", step)
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            return model.reconstruction_loss(images, rng)

    def head_loss(step: int) -> Tensor:
        images, targets, _ = batch("head", step)
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            logits = model(images)  # of the encoder nothing requires a gradient
        return F.cross_entropy(logits.float(), targets)

    settings = {"dataset": dataset.name, "size": len(dataset), **asdict(recipe)}
    outcome = train(model.reconstruction, reconstruction_loss, regime, folder / FIRST, settings, report)
    if not outcome.finished:
        return predictor, outcome, regime
    model.reconstruction.requires_grad_(False)
    left = regime.minutes - (time.monotonic() - start) / 60
    regime = replace(regime, images=recipe.head_images, minutes=left)
    outcome = train(model.head, head_loss, regime, folder, settings, report)
    save_mae(predictor, config, folder)
    return predictor, outcome, regime
