"""Trains a small CLIP on images and captions (Radford et al. 2021, arXiv 2103.00020, figure 3):

    logits[i, j] = scale <image feature i, text feature j>      cross-entropy along both axes, with i = j as the answer

A caption that is said of image i too, though it was drawn for image j, is no wrong answer: that logit is left out.
Images are not augmented: a mirrored one would belie its caption.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig

from diffcern.errors import UsageError
from diffcern.predictors.image_processors import squeezing
from diffcern.rng import generator
from diffcern.train.captions import Captioned, CaptionTable, read_captions
from diffcern.train.images import pixel_statistics
from diffcern.train.loop import Outcome, check_out, train
from diffcern.train.recipes import ClipRecipe, Regime
from diffcern.watching import Report, unheard
from diffcern.weights import write_weights
from diffcern.words import text_config

LARGEST_SCALE = 100.0  # as published


def train_clip(
    data: Captioned,
    recipe: ClipRecipe,
    regime: Regime,
    folder: Path,
    *,
    device: torch.device,
    autocast: bool = False,
    report: Report = unheard,
) -> tuple[Any, Outcome]:
    """Trains (or goes on training) a CLIPModel in `folder` and saves its averaged weights, in transformers' format.

    Raises UsageError for a recipe that cannot be built, DiffcernError for unusable data or a folder that holds other
    things.
    """
    divided = recipe.image_size % recipe.patch, recipe.width % recipe.heads, recipe.text_width % recipe.text_heads
    if any(divided):
        raise UsageError("the image size must be a multiple of the patch, each width a multiple of its heads")
    check_out(folder)
    table = read_captions(data, recipe.image_size)
    _, mean, std = pixel_statistics(table.images, regime.seed)
    rounded = ([round(value, 4) for value in values.tolist()] for values in (mean, std))
    processor = squeezing(recipe.image_size, *rounded)
    torch.manual_seed(regime.seed)  # the initial weights
    model = clip_model(recipe, table).to(device).train()
    mean, std = (
        torch.tensor(value, device=device).view(3, 1, 1) for value in (processor.image_mean, processor.image_std)
    )

    def loss_at(step: int) -> Tensor:
        rng = generator(regime.seed, "clip", step)
        index = torch.randint(len(table), (regime.batch_size,), generator=rng)
        captions = table.draw(index, rng)
        images = (table.batch(index, device) - mean) / std
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            output = model(input_ids=table.tokens[captions].to(device), pixel_values=images)
        logits = output.image_embeds.float() @ output.text_embeds.float().T
        scale = model.logit_scale.exp().clamp(max=LARGEST_SCALE)
        return contrastive_loss(scale * logits, table.describes(index, captions).to(device))

    settings = {"dataset": data.name, "size": len(table), "captions": table.digest, **asdict(recipe)}
    outcome = train(model, loss_at, regime, folder, settings, report)
    model.eval()
    with torch.no_grad():
        model.logit_scale.clamp_(max=math.log(LARGEST_SCALE))
    model.config.architectures = ["CLIPModel"]
    model.config.save_pretrained(folder)
    write_weights(model.state_dict(), folder / "model.safetensors", torch.float16)
    processor.save_pretrained(folder)
    table.tokenizer.save_pretrained(folder)
    return model, outcome


def clip_model(recipe: ClipRecipe, table: CaptionTable) -> Any:
    """A new, untrained CLIPModel for the table's words."""
    vision = vision_config(recipe.image_size, recipe.patch, recipe.width, recipe.depth, recipe.heads).to_dict()
    text = text_config(table.tokenizer, recipe.text_width, recipe.text_depth, recipe.text_heads)
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision, projection_dim=recipe.projection)
    return CLIPModel._from_config(config, attn_implementation="eager")  # plain products, as in `priors/captioned.py`


def vision_config(image_size: int, patch: int, width: int, depth: int, heads: int) -> CLIPVisionConfig:
    """Of an image tower."""
    return CLIPVisionConfig(
        image_size=image_size,
        patch_size=patch,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
    )


def contrastive_loss(logits: Tensor, true: Tensor) -> Tensor:
    """Of logits `[B, B]`, image by caption, whose diagonal is right; other entries that are `true` are left out."""
    own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    logits = logits.masked_fill(true & ~own, -torch.inf)
    answers = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, answers) + F.cross_entropy(logits.T, answers)) / 2
