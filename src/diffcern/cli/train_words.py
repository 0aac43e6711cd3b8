"""`diffcern train text-prior`, `clip` and `answerer`: models that read captions or questions."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from diffcern.cli.options import PickleOption, finite, refuse_given
from diffcern.cli.training import (
    BatchOption,
    BfloatOption,
    CaptionedOption,
    DecayOption,
    DeviceOption,
    EmaOption,
    ImagesOption,
    MinutesOption,
    OutOption,
    RateOption,
    SeedOption,
    SizeOption,
    report,
)


def text_prior(
    dataset: CaptionedOption,
    out: OutOption,
    images: ImagesOption = 400_000,
    batch_size: BatchOption = 64,
    learning_rate: RateOption = 1e-3,
    weight_decay: DecayOption = 0.01,
    ema_decay: EmaOption = 0.9999,
    minutes: MinutesOption = math.inf,
    objective: Annotated[str, typer.Option(help="what the network estimates: x0, v or eps")] = "x0",
    weighting: Annotated[str, typer.Option(help="of the loss over t (default: the objective's own)")] = "",
    image_size: SizeOption = 32,
    grey: Annotated[bool, typer.Option("--grey/--colour", help="one channel")] = False,
    width: Annotated[int, typer.Option(min=8)] = 128,
    depth: Annotated[int, typer.Option(min=1)] = 6,
    heads: Annotated[int, typer.Option(min=1)] = 4,
    patch: Annotated[int, typer.Option(min=1)] = 4,
    text_width: Annotated[int, typer.Option(help="of the text encoder", min=8)] = 128,
    text_depth: Annotated[int, typer.Option(min=1)] = 3,
    text_heads: Annotated[int, typer.Option(min=1)] = 4,
    caption_dropout: Annotated[
        float, typer.Option(help="share of captions left out", min=0.0, max=1.0, callback=finite)
    ] = 0.1,
    device: DeviceOption = "auto",
    bf16: BfloatOption = False,
    seed: SeedOption = 0,
) -> None:
    """Train a small prior that reads captions, with its text encoder (resumes when run again)."""
    from diffcern.devices import device_named
    from diffcern.train.captions import load_captioned
    from diffcern.train.loop import Schedule
    from diffcern.train.text_prior import TextPriorRecipe, train_text_prior

    recipe = TextPriorRecipe(
        objective,
        weighting or objective,
        image_size,
        1 if grey else 3,
        width,
        depth,
        heads,
        patch,
        text_width,
        text_depth,
        text_heads,
        caption_dropout,
    )
    schedule = Schedule(
        images, batch_size, learning_rate, weight_decay, ema_decay=ema_decay, minutes=minutes, seed=seed
    )
    data = load_captioned(dataset)
    _, model, outcome = train_text_prior(data, recipe, schedule, out, device=device_named(device), autocast=bf16)
    report(model, outcome, schedule, out, "samples.png shows one row per caption of samples.txt")


def clip(
    dataset: CaptionedOption,
    out: OutOption,
    images: ImagesOption = 2_000_000,
    batch_size: BatchOption = 256,
    learning_rate: RateOption = 1e-3,
    weight_decay: DecayOption = 0.05,
    ema_decay: EmaOption = 0.999,
    minutes: MinutesOption = math.inf,
    image_size: SizeOption = 32,
    patch: Annotated[int, typer.Option(min=1)] = 4,
    width: Annotated[int, typer.Option(help="of the image tower", min=8)] = 96,
    depth: Annotated[int, typer.Option(min=1)] = 3,
    heads: Annotated[int, typer.Option(min=1)] = 3,
    text_width: Annotated[int, typer.Option(help="of the text tower", min=8)] = 128,
    text_depth: Annotated[int, typer.Option(min=1)] = 3,
    text_heads: Annotated[int, typer.Option(min=1)] = 4,
    projection: Annotated[int, typer.Option(help="length of the features", min=2)] = 64,
    device: DeviceOption = "auto",
    bf16: BfloatOption = False,
    seed: SeedOption = 0,
) -> None:
    """Train a small CLIP, the contrastive baseline of matching (resumes when run again)."""
    from diffcern.devices import device_named
    from diffcern.train.captions import load_captioned
    from diffcern.train.clip import ClipRecipe, train_clip
    from diffcern.train.loop import Schedule

    recipe = ClipRecipe(image_size, patch, width, depth, heads, text_width, text_depth, text_heads, projection)
    schedule = Schedule(
        images, batch_size, learning_rate, weight_decay, ema_decay=ema_decay, minutes=minutes, seed=seed
    )
    data = load_captioned(dataset)
    model, outcome = train_clip(data, recipe, schedule, out, device=device_named(device), autocast=bf16)
    report(model, outcome, schedule, out, "match with it: `diffcern match PAIRS --predictor FOLDER`")


def answerer(
    context: typer.Context,
    dataset: Annotated[
        str,
        typer.Argument(help="embedded:scenes/train, or questions:FILE.parquet with columns image, question, answer"),
    ],
    out: OutOption,
    images: ImagesOption = 200_000,
    batch_size: BatchOption = 32,
    learning_rate: RateOption = 1e-3,
    weight_decay: DecayOption = 0.05,
    ema_decay: EmaOption = 0.999,
    minutes: MinutesOption = math.inf,
    image_size: SizeOption = 64,
    patch: Annotated[int, typer.Option(min=1)] = 8,
    width: Annotated[int, typer.Option(help="of the vision tower", min=8)] = 96,
    depth: Annotated[int, typer.Option(min=1)] = 3,
    heads: Annotated[int, typer.Option(min=1)] = 3,
    text_width: Annotated[int, typer.Option(help="of the language model", min=8)] = 128,
    text_depth: Annotated[int, typer.Option(min=1)] = 3,
    text_heads: Annotated[int, typer.Option(min=1)] = 4,
    questions: Annotated[int, typer.Option(help="about an image in one step, where so many are known", min=1)] = 4,
    vision: Annotated[
        str,
        typer.Option(
            help="take a CLIP's image tower but for its last layer, untrained: embedded:NAME, hf:OWNER/NAME, a folder"
        ),
    ] = "",
    device: DeviceOption = "auto",
    bf16: BfloatOption = False,
    seed: SeedOption = 0,
    allow_pickle: PickleOption = False,
) -> None:
    """Train a small LLaVA that answers questions about images (resumes when run again)."""
    from diffcern.devices import device_named
    from diffcern.train.asked import load_asked
    from diffcern.train.loop import Schedule
    from diffcern.train.question_answering import AnswererRecipe, train_answerer

    if vision:
        refuse_given(context, ("image_size", "patch", "width", "depth", "heads"), "the CLIP's own with --vision")
    recipe = AnswererRecipe(
        image_size, patch, width, depth, heads, text_width, text_depth, text_heads, questions, vision
    )
    schedule = Schedule(
        images, batch_size, learning_rate, weight_decay, ema_decay=ema_decay, minutes=minutes, seed=seed
    )
    data = load_asked(dataset)
    model, outcome = train_answerer(
        data, recipe, schedule, out, device=device_named(device), autocast=bf16, allow_pickle=allow_pickle
    )
    report(model, outcome, schedule, out, "ask it: `diffcern answer QUESTIONS --predictor FOLDER`")
