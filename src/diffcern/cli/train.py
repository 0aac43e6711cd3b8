"""`diffcern train prior`, `diffcern train predictor` and `diffcern train mae`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Train a prior or a predictor.", no_args_is_help=True)

DatasetOption = Annotated[
    str, typer.Argument(help="labelled images: parquet:PATH, imagefolder:PATH, hf:..., embedded:digits/train")
]
OutOption = Annotated[Path, typer.Option("--out", help="folder for the weights and the checkpoint")]
ImagesOption = Annotated[int, typer.Option("--images", help="images to see in all", min=1)]
BatchOption = Annotated[int, typer.Option("--batch-size", min=1)]
RateOption = Annotated[float, typer.Option("--learning-rate", min=0.0)]
DecayOption = Annotated[float, typer.Option("--weight-decay", min=0.0)]
EmaOption = Annotated[float, typer.Option("--ema-decay", min=0.0, max=0.999999)]
MinutesOption = Annotated[float, typer.Option("--minutes", help="stop after this time; run again to go on")]
SizeOption = Annotated[int, typer.Option("--image-size", min=8)]
AugmentOption = Annotated[str, typer.Option("--augment", help="none, or a list of flip, crop, affine")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps")]
BfloatOption = Annotated[bool, typer.Option("--bf16/--fp32", help="autocast the network to bfloat16")]
NamesOption = Annotated[str, typer.Option("--class-names", help="comma-separated, where the data name none")]
SeedOption = Annotated[int, typer.Option("--seed")]
InitOption = Annotated[str, typer.Option("--init", help="folder of a trained prior of the same shape, to start from")]


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
    label_dropout: Annotated[float, typer.Option(min=0.0, max=1.0)] = 0.1,
    soft_labels: Annotated[float, typer.Option(help="share of labels that become mixtures", min=0.0, max=1.0)] = 0.5,
    device: DeviceOption = "auto",
    bf16: BfloatOption = False,
    class_names: NamesOption = "",
    init: InitOption = "",
    seed: SeedOption = 0,
) -> None:
    """Train a small class-conditional diffusion prior (resumes when run again)."""
    from diffcern.data import load_dataset
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
        label_dropout,
        soft_labels,
        init,
    )
    schedule = Schedule(
        images, batch_size, learning_rate, weight_decay, ema_decay=ema_decay, minutes=minutes, seed=seed
    )
    data = load_dataset(dataset, class_names=_names(class_names))
    model, outcome = train_prior(data, recipe, schedule, out, device=device_named(device), autocast=bf16)
    _report(model, outcome, schedule, out, "samples.png shows one row per class")


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
    architecture: Annotated[str, typer.Option(help="small-resnet or timm:NAME")] = "small-resnet",
    image_size: SizeOption = 32,
    width: Annotated[int, typer.Option(min=4)] = 16,
    depth: Annotated[int, typer.Option(min=1)] = 2,
    augment: AugmentOption = "none",
    label_smoothing: Annotated[float, typer.Option(min=0.0, max=0.9)] = 0.0,
    device: DeviceOption = "auto",
    bf16: BfloatOption = False,
    class_names: NamesOption = "",
    seed: SeedOption = 0,
) -> None:
    """Train a small classifier (resumes when run again)."""
    from diffcern.data import load_dataset
    from diffcern.devices import device_named
    from diffcern.train.loop import Schedule
    from diffcern.train.predictor import PredictorRecipe, train_predictor

    recipe = PredictorRecipe(architecture, image_size, width, depth, augment, label_smoothing)
    schedule = Schedule(
        images, batch_size, learning_rate, weight_decay, ema_decay=ema_decay, minutes=minutes, seed=seed
    )
    data = load_dataset(dataset, class_names=_names(class_names))
    model, outcome = train_predictor(data, recipe, schedule, out, device=device_named(device), autocast=bf16)
    _report(model, outcome, schedule, out, "evaluate it with `diffcern bench`")


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
    from diffcern.data import load_dataset
    from diffcern.devices import device_named
    from diffcern.train.loop import Schedule
    from diffcern.train.mae import MaeRecipe, train_mae

    recipe = MaeRecipe(image_size, width, depth, heads, patch, decoder_depth, head_depth, augment, head_images)
    schedule = Schedule(
        images, batch_size, learning_rate, weight_decay, ema_decay=ema_decay, minutes=minutes, seed=seed
    )
    data = load_dataset(dataset, class_names=_names(class_names))
    model, outcome, phase = train_mae(data, recipe, schedule, out, device=device_named(device), autocast=bf16)
    _report(model, outcome, phase, out, "adapt it with --method ttt-mae")


def _names(text: str) -> list[str] | None:
    return [name.strip() for name in text.split(",")] if text else None


def _report(model, outcome, schedule, out: Path, hint: str) -> None:  # type: ignore[no-untyped-def]
    """Says how far training came; exit code 130 where Ctrl-C ended it (the time limit is a planned stop)."""
    size = sum(p.numel() for p in model.parameters()) / 1e6
    stopped = "interrupted" if outcome.interrupted else "stopped"
    state = "finished" if outcome.finished else f"{stopped}; run the same command to go on"
    typer.echo(f"{state}: {size:.2f} M parameters, step {outcome.step} of {schedule.steps}, loss {outcome.loss:.4f}")
    typer.echo(f"in {out}" + (f" ({hint})" if outcome.finished else ""))
    if outcome.interrupted:
        raise typer.Exit(130)
