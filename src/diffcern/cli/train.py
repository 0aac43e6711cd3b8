"""`diffcern train`: prior, predictor and mae; text-prior, clip and answerer are in `cli/train_words.py`."""

from __future__ import annotations

import math
from typing import Annotated, cast

import typer

from diffcern.cli.options import finite
from diffcern.cli.train_words import answerer, clip, text_prior
from diffcern.cli.training import (
    AugmentOption,
    BatchOption,
    BfloatOption,
    DatasetOption,
    DecayOption,
    DeviceOption,
    EmaOption,
    ImagesOption,
    InitOption,
    MinutesOption,
    NamesOption,
    OutOption,
    RateOption,
    SeedOption,
    SizeOption,
    named_data,
    parse_size,
    report,
)
from diffcern.kinds import CLASSIFICATION, KINDS, TaskName

app = typer.Typer(help="Train a prior or a predictor.", no_args_is_help=True)


@app.command("prior")
def prior(
    dataset: DatasetOption,
    out: OutOption,
    images: ImagesOption = 2_000_000,
    batch_size: BatchOption = 128,
    learning_rate: RateOption = 1e-3,
    weight_decay: DecayOption = 0.01,
    ema_decay: EmaOption = 0.9999,
    minutes: MinutesOption = math.inf,
    architecture: Annotated[str, typer.Option(help="dit or unet")] = "dit",
    objective: Annotated[str, typer.Option(help="what the network estimates: x0, v or eps")] = "x0",
    weighting: Annotated[str, typer.Option(help="of the loss over t (default: the objective's own)")] = "",
    image_size: SizeOption = 32,
    grey: Annotated[bool, typer.Option("--grey/--colour", help="one channel")] = False,
    width: Annotated[int, typer.Option(min=8)] = 192,
    depth: Annotated[int, typer.Option(min=1)] = 6,
    heads: Annotated[int, typer.Option(min=1)] = 3,
    patch: Annotated[int, typer.Option(min=1)] = 4,
    augment: AugmentOption = "none",
    maps: Annotated[str, typer.Option("--maps", help="segmentation or depth: condition on the data's maps")] = "",
    label_dropout: Annotated[
        float, typer.Option(help="share of labels or maps that are left out", min=0.0, max=1.0, callback=finite)
    ] = 0.1,
    soft_labels: Annotated[
        float, typer.Option(help="share of labels that become mixtures", min=0.0, max=1.0, callback=finite)
    ] = 0.5,
    device: DeviceOption = "auto",
    bf16: BfloatOption = False,
    class_names: NamesOption = "",
    init: InitOption = "",
    times: Annotated[str, typer.Option(help="how noise levels are drawn: uniform or logit-normal")] = "uniform",
    rivals: Annotated[
        float, typer.Option(help="share of images denoised under a wrong class too", min=0, max=1, callback=finite)
    ] = 0.0,
    rival_weight: Annotated[float, typer.Option(help="of that term in the loss", min=0.0, callback=finite)] = 1e-3,
    align: Annotated[str, typer.Option(help="a predictor whose features an early block should find (REPA)")] = "",
    align_block: Annotated[int, typer.Option(help="which block, from 1", min=1)] = 3,
    align_weight: Annotated[float, typer.Option(help="of that term in the loss", min=0.0, callback=finite)] = 0.5,
    seed: SeedOption = 0,
) -> None:
    """Train a small class-conditional diffusion prior (resumes when run again)."""
    from diffcern.devices import device_named
    from diffcern.train.loop import Schedule
    from diffcern.train.prior import PriorRecipe, train_prior

    recipe = PriorRecipe(
        architecture,
        objective,
        weighting or objective,
        image_size,
        1 if grey else 3,
        width,
        depth,
        heads,
        patch,
        augment,
        maps,
        label_dropout,
        soft_labels,
        init,
        times,
        rivals,
        rival_weight,
        align,
        align_block,
        align_weight,
    )
    schedule = Schedule(
        images, batch_size, learning_rate, weight_decay, ema_decay=ema_decay, minutes=minutes, seed=seed
    )
    data = named_data(dataset, class_names, maps)
    model, outcome = train_prior(data, recipe, schedule, out, device=device_named(device), autocast=bf16)
    report(model, outcome, schedule, out, "samples.png shows what it draws")


@app.command("predictor")
def predictor(
    dataset: DatasetOption,
    out: OutOption,
    images: ImagesOption = 1_000_000,
    batch_size: BatchOption = 128,
    learning_rate: RateOption = 2e-3,
    weight_decay: DecayOption = 0.05,
    ema_decay: EmaOption = 0.9999,
    minutes: MinutesOption = math.inf,
    task: Annotated[str, typer.Option("--task", help="classification, segmentation or depth")] = "classification",
    architecture: Annotated[
        str, typer.Option(help="small-resnet or timm:NAME; small-unet for maps (default: by the task)")
    ] = "",
    image_size: Annotated[str, typer.Option("--image-size", help="a side, or HEIGHTxWIDTH")] = "32",
    width: Annotated[int, typer.Option(min=4)] = 16,
    depth: Annotated[int, typer.Option(min=1)] = 2,
    augment: AugmentOption = "none",
    label_smoothing: Annotated[float, typer.Option(min=0.0, max=0.9, callback=finite)] = 0.0,
    device: DeviceOption = "auto",
    bf16: BfloatOption = False,
    class_names: NamesOption = "",
    seed: SeedOption = 0,
) -> None:
    """Train a small classifier, segmenter or depth predictor (resumes when run again)."""
    from diffcern.devices import device_named
    from diffcern.train.loop import Schedule
    from diffcern.train.predictor import PredictorRecipe, train_predictor

    architecture = architecture or ("small-unet" if KINDS.get(task, CLASSIFICATION).dense else "small-resnet")
    kind = cast("TaskName", task)  # checked where it is used
    recipe = PredictorRecipe(architecture, parse_size(image_size), width, depth, augment, label_smoothing, kind)
    schedule = Schedule(
        images, batch_size, learning_rate, weight_decay, ema_decay=ema_decay, minutes=minutes, seed=seed
    )
    data = named_data(dataset, class_names, task)
    model, outcome = train_predictor(data, recipe, schedule, out, device=device_named(device), autocast=bf16)
    report(model, outcome, schedule, out, "evaluate it with `diffcern bench`")


@app.command("mae")
def mae(
    dataset: DatasetOption,
    out: OutOption,
    images: ImagesOption = 2_000_000,
    head_images: Annotated[int, typer.Option(help="images for the head to see in all, afterwards", min=1)] = 500_000,
    batch_size: BatchOption = 128,
    learning_rate: RateOption = 1e-3,
    weight_decay: DecayOption = 0.05,
    ema_decay: EmaOption = 0.9999,
    minutes: MinutesOption = math.inf,
    image_size: SizeOption = 32,
    width: Annotated[int, typer.Option(min=8)] = 96,
    depth: Annotated[int, typer.Option(min=1)] = 6,
    heads: Annotated[int, typer.Option(min=1)] = 3,
    patch: Annotated[int, typer.Option(min=1)] = 4,
    decoder_depth: Annotated[int, typer.Option(min=1)] = 2,
    head_depth: Annotated[int, typer.Option(help="0: a linear probe", min=0)] = 1,
    augment: AugmentOption = "none",
    device: DeviceOption = "auto",
    bf16: BfloatOption = False,
    class_names: NamesOption = "",
    seed: SeedOption = 0,
) -> None:
    """Train a masked autoencoder, then a classifier on its frozen encoder, for ttt-mae (resumes when run again)."""
    from diffcern.devices import device_named
    from diffcern.train.loop import Schedule
    from diffcern.train.mae import MaeRecipe, train_mae

    recipe = MaeRecipe(image_size, width, depth, heads, patch, decoder_depth, head_depth, augment, head_images)
    schedule = Schedule(
        images, batch_size, learning_rate, weight_decay, ema_decay=ema_decay, minutes=minutes, seed=seed
    )
    data = named_data(dataset, class_names)
    model, outcome, phase = train_mae(data, recipe, schedule, out, device=device_named(device), autocast=bf16)
    report(model, outcome, phase, out, "adapt it with --method ttt-mae")


app.command("text-prior")(text_prior)
app.command("clip")(clip)
app.command("answerer")(answerer)
