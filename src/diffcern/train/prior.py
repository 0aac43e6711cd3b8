"""Trains a native prior with label dropout and EMA (the loss: `denoising.py`, and what may be added to it: `rivals.py`,
`representations.py`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.utils import make_grid

from diffcern.configs import check_config
from diffcern.data import Dataset, encode_png
from diffcern.errors import UsageError, unknown
from diffcern.familiarity import clean_errors
from diffcern.files import write_whole
from diffcern.kinds import KINDS
from diffcern.predictors import load_predictor
from diffcern.priors.features import new_autoencoder
from diffcern.priors.native import NativeConfig, NativePrior, native_prior
from diffcern.priors.own import OBJECTIVES
from diffcern.rng import generator
from diffcern.sampling import sample
from diffcern.solvers import usual_solver
from diffcern.tasks import MAP_TASKS
from diffcern.train.augmentations import augment, augmentation_names, moved, relit
from diffcern.train.conditions import maps_of, maps_told
from diffcern.train.denoising import TIMES, denoising_errors, noised
from diffcern.train.images import ImageTable, pixel_statistics, read_table
from diffcern.train.loop import Outcome, check_out, train
from diffcern.train.recipes import PriorRecipe, Regime, noted
from diffcern.train.representations import Representations
from diffcern.train.rivals import evidence_slope, other_classes, rival_loss
from diffcern.types import Condition
from diffcern.watching import Report, unheard
from diffcern.weightings import weighting as weighting_named

CLEAN = 512  # images whose errors make the clean profile
# What `noted` leaves out where it is not used.
LATER = ("times", "rivals", "rival_weight", "rival_temper", "align", "align_block", "align_weight", "encoder")
# Concentration of soft labels, mostly one class, sometimes several: per class, and of more than ten classes in all.
DIRICHLET, DIRICHLET_IN_ALL = 0.1, 1.0


def train_prior(
    dataset: Dataset,
    recipe: PriorRecipe,
    regime: Regime,
    folder: Path,
    *,
    device: torch.device,
    autocast: bool = False,
    report: Report = unheard,
) -> tuple[NativePrior, Outcome]:
    """Trains (or goes on training) a prior in `folder`; on the way out saves the averaged weights and samples.

    Raises UsageError for a recipe that cannot be built, DiffcernError for unusable data, a foreign checkpoint or a
    folder that holds other things.
    """
    recipe = replace(recipe, weighting=recipe.weighting or recipe.objective)
    if recipe.objective not in OBJECTIVES:
        raise UsageError(f"objective is one of {', '.join(OBJECTIVES)}, not {recipe.objective!r}")
    check_patch(recipe, recipe.image_size)
    if recipe.maps and recipe.maps not in MAP_TASKS:
        raise UsageError(f"maps are segmentation or depth, not {recipe.maps!r}")
    weighting_named(recipe.weighting)
    if recipe.times not in TIMES:
        raise unknown("times", recipe.times, TIMES)
    if recipe.rivals and (recipe.maps or recipe.soft_labels):
        raise UsageError("rivals compare classes, one for each image: leave --maps out, and give --soft-labels 0")
    if recipe.encoder and (recipe.maps or recipe.channels == 1):
        raise UsageError("--encoder makes features of colour images under labels: leave --maps and --grey out")
    if recipe.encoder and recipe.align:
        raise UsageError("--encoder denoises features, and --align draws pixels' tokens to some: give one of the two")
    augmentations = augmentation_names(recipe.augmentation)
    check_out(folder)
    table = read_table(dataset, recipe.image_size, KINDS[recipe.maps].truth if recipe.maps else "label")
    maps = maps_of(recipe.maps, dataset, table)
    names = () if maps else tuple(dataset.class_names)
    sizes = (recipe.image_size, recipe.channels)
    config = NativeConfig(recipe.architecture, recipe.objective, *sizes, names, maps, bool(recipe.encoder))
    check_config(config)
    torch.manual_seed(regime.seed)  # the initial weights
    autoencoder = None
    if recipe.encoder:
        some, _, _ = pixel_statistics(table.images, regime.seed)
        autoencoder = new_autoencoder(recipe.encoder, table.images[some].float() / 255)
        check_patch(recipe, autoencoder.features.latent_shape[-1])
    prior = native_prior(
        config,
        width=recipe.width,
        depth=recipe.depth,
        heads=recipe.heads,
        patch=recipe.patch,
        autoencoder=autoencoder,
    )
    if recipe.init:
        _start_from(prior, recipe.init)
    prior.to(device).train().requires_grad_(True)
    told = maps_told(prior, table) if maps else None
    parts, representations = {"denoiser": prior.denoiser}, None
    if autoencoder:
        autoencoder.encoder.requires_grad_(False)
        parts["decoder"] = autoencoder.decoder
    if recipe.align:
        encoder = load_predictor(recipe.align).to(device)
        representations = Representations(prior.denoiser, encoder, recipe.align_block, recipe.image_size).to(device)
        parts["representations"] = representations
    trained = nn.ModuleDict(parts) if len(parts) > 1 else prior.denoiser

    def loss_at(step: int) -> Tensor:
        return _loss(prior, table, told, recipe, augmentations, representations, regime, step, autocast)

    settings = {"dataset": dataset.name, "size": len(dataset), "names": names, **noted(recipe, *LATER)}
    settings |= {"map_names": maps.names if maps else ()}
    outcome = train(trained, loss_at, regime, folder, settings, report)
    if representations:
        representations.leave()
    prior.eval().requires_grad_(False)
    some = torch.linspace(0, len(dataset) - 1, min(CLEAN, len(dataset))).long()
    images, targets = table.batch(some, prior.device)
    known = Condition(spatial=told(some)) if told else prior.hypotheses()[targets]
    prior.clean_errors = clean_errors(prior, images, known)
    prior.save_pretrained(folder)
    write_whole(folder / "samples.png", encode_png(sample_grid(prior, known).clamp(0, 1)))
    return prior, outcome


def check_patch(recipe: PriorRecipe, side: int) -> None:
    """Raises UsageError for a transformer whose patches do not fill latents of that side."""
    if recipe.architecture == "dit" and (side % recipe.patch or recipe.width % recipe.heads):
        what = "image size" if side == recipe.image_size else f"side of the encoder's map, {side},"
        raise UsageError(f"the {what} must be a multiple of the patch, the width a multiple of the heads")


def _start_from(prior: NativePrior, folder: str) -> None:
    """Gives the prior the weights of a trained one; UsageError where the two differ."""
    if not Path(folder).is_dir():
        raise UsageError(f"--init takes the folder of a trained prior; there is no folder {folder}")
    trained = NativePrior.from_pretrained(Path(folder))
    for name, value in asdict(prior.config).items():
        if (other := asdict(trained.config)[name]) != value:
            raise UsageError(f"--init {folder} has {name} {other}, and this run {value}: they must be the same")
    try:
        prior.load_state_dict(trained.state_dict())
    except RuntimeError as error:
        raise UsageError(f"--init {folder} has another width, depth, heads or patch: {error}") from error


def _loss(
    prior: NativePrior,
    table: ImageTable,
    told: Callable[[Tensor], Tensor] | None,
    recipe: PriorRecipe,
    augmentations: tuple[str, ...],
    representations: Representations | None,
    regime: Regime,
    step: int,
    autocast: bool,
) -> Tensor:
    """The mean loss of step number `step`, a function of (seed, step) alone."""
    rng = generator(regime.seed, "prior", step)
    index = torch.randint(len(table.targets), (regime.batch_size,), generator=rng)
    images, targets = table.batch(index, prior.device)
    dropped = (torch.rand(len(index), generator=rng) < recipe.label_dropout).to(prior.device)
    if told:
        both = moved(torch.cat([images, told(index)], 1), augmentations, rng)
        images, spatial = relit(both[:, :3], augmentations, rng), both[:, 3:]
        condition = Condition(spatial=spatial.masked_fill(dropped[:, None, None, None], 0))
    else:
        images = augment(images, augmentations, rng)
        classes = soften(targets.cpu(), len(prior.class_names), recipe.soft_labels, rng).to(prior.device)
        null = torch.nn.functional.one_hot(torch.tensor(len(prior.class_names), device=prior.device)).float()
        condition = Condition(classes=torch.where(dropped[:, None], null, torch.nn.functional.pad(classes, (0, 1))))
    latents = prior.autoencoder.together(images) if prior.autoencoder else prior.encode(images)
    rows = noised(prior, latents, rng, recipe.times)
    errors, own = denoising_errors(prior, rows, condition, (recipe.weighting, "min-snr"), autocast)
    loss = errors.mean()
    if prior.autoencoder:
        loss = loss + torch.nn.functional.mse_loss(prior.autoencoder.decoder(latents), images)
    if representations:
        loss = loss + recipe.align_weight * representations.loss(images)
    if recipe.rivals:
        contested = (torch.rand(len(index), generator=rng) < recipe.rivals).to(prior.device) & ~dropped
        contested = contested.nonzero().flatten()
        others = other_classes(targets[contested], len(prior.class_names), rng)
        against = Condition(classes=torch.nn.functional.one_hot(others, len(prior.class_names)).float())
        (rival,) = denoising_errors(prior, rows[contested], against, ("min-snr",), autocast)
        slope = evidence_slope(prior)[rows.timesteps[contested]]
        pull = rival_loss(own[contested], rival, slope, rows.latents[0].numel(), recipe.rival_temper)
        loss = loss + recipe.rival_weight * pull.sum() / max(len(contested), 1)
    return loss


def soften(targets: Tensor, count: int, share: float, rng: torch.Generator) -> Tensor:
    """Labels `[B, K]`: one-hot, but for a share of them a mixture c ~ Dirichlet(a 1 + e_y).

    By conjugacy that is the law of c given y when c ~ Dirichlet(a 1) and y ~ c. A network trained on it learns
    E[x0 | x_t, c] of the mixture sum_k c_k p(x | k), so that its loss at a soft label is that of the mixture.
    Sound in theory; whether it helps Diffusion-TTA is open.
    """
    one_hot = torch.nn.functional.one_hot(targets, count).float()
    numbers = np.random.default_rng(int(torch.randint(2**62, (), generator=rng)))
    concentration = min(DIRICHLET, DIRICHLET_IN_ALL / count)
    gamma = torch.from_numpy(numbers.standard_gamma(concentration + one_hot.numpy())).float()
    mixed = torch.rand(len(targets), 1, generator=rng) < share
    return torch.where(mixed, gamma / gamma.sum(1, keepdim=True), one_hot)


@torch.no_grad()
def sample_grid(prior: NativePrior, known: Condition, columns: int = 10, steps: int = 50, seed: int = 0) -> Tensor:
    """Samples: an image `[3, H, W]` in [0, 1]; of every class one row (at most 20 classes), of maps one row for
    each of the first eight known ones."""
    condition = known[:8] if prior.maps else prior.hypotheses()[:20]
    condition = condition.map(lambda value: value.repeat_interleave(columns, 0))
    ids = [f"sample {number}" for number in range(len(condition))]
    latents = sample(prior, ids, condition, steps=steps, solver=usual_solver(prior), seed=seed)
    return make_grid(prior.decode(latents), nrow=columns, padding=1, pad_value=1.0)
