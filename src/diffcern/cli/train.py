"""`diffcern train`: prior, text-prior, predictor, clip, answerer and mae."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from diffcern.errors import UsageError

if TYPE_CHECKING:
    from diffcern.predictors.base import Kind, Size

app = typer.Typer(help="Train a prior or a predictor.", no_args_is_help=True)

DatasetOption = Annotated[
    str, typer.Argument(help="labelled images: parquet:PATH, imagefolder:PATH, hf:..., embedded:digits/train")
]
CaptionedOption = Annotated[
    str, typer.Argument(help="images with captions: FILE.parquet with columns image and caption, embedded:scenes/train")
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
    maps: Annotated[str, typer.Option("--maps", help="segmentation or depth: condition on the data's maps")] = "",
    label_dropout: Annotated[
        float, typer.Option(help="share of labels or maps that are left out", min=0.0, max=1.0)
    ] = 0.1,
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
        maps,
        label_dropout,
        soft_labels,
        init,
    )
    schedule = Schedule(
        images, batch_size, learning_rate, weight_decay, ema_decay=ema_decay, minutes=minutes, seed=seed
    )
    data = load_dataset(dataset, class_names=_names(class_names))
    model, outcome = train_prior(data, recipe, schedule, out, device=device_named(device), autocast=bf16)
    _report(model, outcome, schedule, out, "samples.png shows what it draws")


@app.command("text-prior")
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
    caption_dropout: Annotated[float, typer.Option(help="share of captions left out", min=0.0, max=1.0)] = 0.1,
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
    _report(model, outcome, schedule, out, "samples.png shows one row per caption of samples.txt")


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
    label_smoothing: Annotated[float, typer.Option(min=0.0, max=0.9)] = 0.0,
    device: DeviceOption = "auto",
    bf16: BfloatOption = False,
    class_names: NamesOption = "",
    seed: SeedOption = 0,
) -> None:
    """Train a small classifier, segmenter or depth predictor (resumes when run again)."""
    from diffcern.data import load_dataset
    from diffcern.devices import device_named
    from diffcern.train.loop import Schedule
    from diffcern.train.predictor import PredictorRecipe, train_predictor

    architecture = architecture or ("small-resnet" if task == "classification" else "small-unet")
    kind = cast("Kind", task)  # checked where it is used
    recipe = PredictorRecipe(architecture, parse_size(image_size), width, depth, augment, label_smoothing, kind)
    schedule = Schedule(
        images, batch_size, learning_rate, weight_decay, ema_decay=ema_decay, minutes=minutes, seed=seed
    )
    data = load_dataset(dataset, class_names=_names(class_names))
    model, outcome = train_predictor(data, recipe, schedule, out, device=device_named(device), autocast=bf16)
    _report(model, outcome, schedule, out, "evaluate it with `diffcern bench`")


@app.command("clip")
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
    _report(model, outcome, schedule, out, "match with it: `diffcern match PAIRS --predictor FOLDER`")


@app.command("answerer")
def answerer(
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
    device: DeviceOption = "auto",
    bf16: BfloatOption = False,
    seed: SeedOption = 0,
) -> None:
    """Train a small LLaVA that answers questions about images (resumes when run again)."""
    from diffcern.devices import device_named
    from diffcern.train.asked import load_asked
    from diffcern.train.loop import Schedule
    from diffcern.train.question_answering import AnswererRecipe, train_answerer

    recipe = AnswererRecipe(image_size, patch, width, depth, heads, text_width, text_depth, text_heads, questions)
    schedule = Schedule(
        images, batch_size, learning_rate, weight_decay, ema_decay=ema_decay, minutes=minutes, seed=seed
    )
    data = load_asked(dataset)
    model, outcome = train_answerer(data, recipe, schedule, out, device=device_named(device), autocast=bf16)
    _report(model, outcome, schedule, out, "ask it: `diffcern answer QUESTIONS --predictor FOLDER`")


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


def parse_size(text: str) -> Size:
    """Parses "32" or "96x128", height first. Raises UsageError for other texts and for sides below 8."""
    sides = text.split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) >= 8 for side in sides):
        raise UsageError(f"--image-size is a side of at least 8 pixels, or HEIGHTxWIDTH, not {text!r}")
    return int(sides[0]) if len(sides) == 1 else (int(sides[0]), int(sides[1]))


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
