"""Trains a prior that reads captions, together with its text encoder:

    E_{x, caption of x, t, eps} w(t) ||target - network(x_t, t, encoder(caption))||^2

with captions dropped for the empty prompt and EMA. Images are seen in another light at most: a mirrored one would belie
its caption.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.utils import make_grid

from diffcern.data import encode_png
from diffcern.errors import UsageError, unknown
from diffcern.familiarity import clean_errors
from diffcern.files import write_whole
from diffcern.priors.captioned import CaptionedConfig, CaptionedPrior, captioned_prior
from diffcern.priors.own import OBJECTIVES
from diffcern.rng import generator
from diffcern.sampling import sample
from diffcern.solvers import usual_solver
from diffcern.train.augmentations import LIGHT, augmentation_names, relit
from diffcern.train.captions import Captioned, CaptionTable, read_captions
from diffcern.train.denoising import denoising_loss
from diffcern.train.loop import Outcome, check_out, train
from diffcern.train.prior import CLEAN
from diffcern.train.recipes import Regime, TextPriorRecipe, noted
from diffcern.types import Condition
from diffcern.watching import Report, unheard
from diffcern.weightings import weighting as weighting_named
from diffcern.words import token_ids

SHOWN, COLUMNS = 8, 8  # captions in samples.png, and samples of each


def train_text_prior(
    data: Captioned,
    recipe: TextPriorRecipe,
    regime: Regime,
    folder: Path,
    *,
    device: torch.device,
    autocast: bool = False,
    report: Report = unheard,
) -> tuple[CaptionedPrior, nn.Module, Outcome]:
    """Trains (or goes on training) a prior in `folder`; on the way out saves the averaged weights and samples.

    Returns the prior, and all that was trained. Raises UsageError for a recipe that cannot be built, DiffcernError for
    unusable data, a foreign checkpoint or a folder that holds other things.
    """
    if recipe.objective not in OBJECTIVES:
        raise unknown("objective", recipe.objective, OBJECTIVES)
    recipe = replace(recipe, weighting=recipe.weighting or recipe.objective)
    divided = recipe.image_size % recipe.patch, recipe.width % recipe.heads, recipe.text_width % recipe.text_heads
    if set(augmentation_names(recipe.augmentation)) - {LIGHT}:
        raise UsageError("captions are trained with --augment light or none: a picture that is moved may belie its own")
    if any(divided):
        raise UsageError("the image size must be a multiple of the patch, each width a multiple of its heads")
    weighting_named(recipe.weighting)
    check_out(folder)
    config = CaptionedConfig(recipe.objective, recipe.image_size, recipe.channels)
    table = read_captions(data, recipe.image_size)
    shape = ("width", "depth", "heads", "patch", "text_width", "text_depth", "text_heads")
    torch.manual_seed(regime.seed)  # the initial weights
    prior = captioned_prior(config, table.tokenizer, **{name: getattr(recipe, name) for name in shape}).to(device)
    networks = nn.ModuleDict({"denoiser": prior.denoiser, "text_encoder": prior.encoder.network})
    networks.to(device).requires_grad_(True)

    def loss_at(step: int) -> Tensor:
        return _loss(prior, table, recipe, regime, step, autocast)

    settings = {"dataset": data.name, "size": len(table), "captions": table.digest, **noted(recipe, "augmentation")}
    outcome = train(networks, loss_at, regime, folder, settings, report)
    networks.requires_grad_(False)
    prior.embed_null()
    some = torch.linspace(0, len(table) - 1, min(CLEAN, len(table))).long()
    captions = [table.texts[number] for number in table.said[some, 0].tolist()]
    prior.clean_errors = clean_errors(prior, table.batch(some, device), prior.prompts(captions))
    prior.save_pretrained(folder)
    shown = list(dict.fromkeys(captions))[:SHOWN]
    write_whole(folder / "samples.png", encode_png(sample_grid(prior, shown).clamp(0, 1)))
    write_whole(folder / "samples.txt", "\n".join([*shown, ""]).encode())
    return prior, networks, outcome


def _loss(
    prior: CaptionedPrior, table: CaptionTable, recipe: TextPriorRecipe, regime: Regime, step: int, autocast: bool
) -> Tensor:
    """The mean loss of step number `step`, a function of (seed, step) alone."""
    rng = generator(regime.seed, "text-prior", step)
    index = torch.randint(len(table), (regime.batch_size,), generator=rng)
    tokens = table.tokens[table.draw(index, rng)]
    dropped = torch.rand(len(index), generator=rng) < recipe.caption_dropout
    tokens[dropped] = token_ids(table.tokenizer, [""])
    with torch.autocast(prior.device.type, torch.bfloat16, enabled=autocast):
        condition = Condition(tokens=prior.encoder.read(tokens.to(prior.device)))
    images = relit(table.batch(index, prior.device), augmentation_names(recipe.augmentation), rng)
    latents = prior.encode(images)
    return denoising_loss(prior, latents, condition, recipe.weighting, rng, autocast)


def sample_grid(prior: CaptionedPrior, captions: list[str], steps: int = 50) -> Tensor:
    """Samples of each caption, one row each: an image `[3, H, W]` in [0, 1]."""
    condition = prior.prompts(captions).map(lambda value: value.repeat_interleave(COLUMNS, 0))
    ids = [f"{row} {column}" for row in range(len(captions)) for column in range(COLUMNS)]
    latents = sample(prior, ids, condition, steps=steps, solver=usual_solver(prior))
    return make_grid(prior.decode(latents), nrow=COLUMNS, padding=1, pad_value=1.0)
