"""What the commands of `diffcern train` share: their options, and what they say at the end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffcern.cli.options import finite
from diffcern.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from diffcern.data import Dataset
    from diffcern.resizing import Size
    from diffcern.train.loop import Outcome, Schedule

DatasetOption = Annotated[
    str, typer.Argument(help="labelled images: parquet:PATH, imagefolder:PATH, hf:..., embedded:digits/train")
]
CaptionedOption = Annotated[
    str, typer.Argument(help="images with captions: FILE.parquet with columns image and caption, embedded:scenes/train")
]
OutOption = Annotated[Path, typer.Option("--out", help="folder for the weights and the checkpoint")]
ImagesOption = Annotated[int, typer.Option("--images", help="images to see in all", min=1)]
BatchOption = Annotated[int, typer.Option("--batch-size", min=1)]
RateOption = Annotated[float, typer.Option("--learning-rate", min=0.0, callback=finite)]
DecayOption = Annotated[float, typer.Option("--weight-decay", min=0.0, callback=finite)]
EmaOption = Annotated[float, typer.Option("--ema-decay", min=0.0, max=0.999999, callback=finite)]
MinutesOption = Annotated[float, typer.Option("--minutes", help="stop after this time; run again to go on")]
SizeOption = Annotated[int, typer.Option("--image-size", min=8)]
AugmentOption = Annotated[str, typer.Option("--augment", help="none, or a list of flip, crop, affine")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps")]
BfloatOption = Annotated[bool, typer.Option("--bf16/--fp32", help="autocast the network to bfloat16")]
NamesOption = Annotated[str, typer.Option("--class-names", help="comma-separated, where the data name none")]
SeedOption = Annotated[int, typer.Option("--seed")]
InitOption = Annotated[str, typer.Option("--init", help="folder of a trained prior of the same shape, to start from")]


def parse_size(text: str) -> Size:
    """Parses "32" or "96x128", height first. Raises UsageError for other texts and for sides below 8."""
    sides = text.split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) >= 8 for side in sides):
        raise UsageError(f"--image-size is a side of at least 8 pixels, or HEIGHTxWIDTH, not {text!r}")
    return int(sides[0]) if len(sides) == 1 else (int(sides[0]), int(sides[1]))


def names_of(text: str) -> list[str] | None:
    """Comma-separated names; None where there are none. Raises UsageError for an empty one, and one given twice."""
    if not text:
        return None
    names = [name.strip() for name in text.split(",")]
    if "" in names or len(set(names)) < len(names):
        raise UsageError(f"--class-names are different names, as cat,dog, not {text!r}")
    return names


def named_data(name: str, class_names: str, task: str = "") -> Dataset:
    """The data set `name`, its classes called class_names (see `names_of`): for segmentation those of its masks."""
    from diffcern.run.truths import load_images

    return load_images(name, task, names_of(class_names))


def report(model: nn.Module, outcome: Outcome, schedule: Schedule, out: Path, hint: str) -> None:
    """Says how far training came; exit code 130 where Ctrl-C ended it (the time limit is a planned stop)."""
    size = sum(p.numel() for p in model.parameters()) / 1e6
    stopped = "interrupted" if outcome.interrupted else "stopped"
    state = "finished" if outcome.finished else f"{stopped}; run the same command to go on"
    typer.echo(f"{state}: {size:.2f} M parameters, step {outcome.step} of {schedule.steps}, loss {outcome.loss:.4f}")
    typer.echo(f"in {out}" + (f" ({hint})" if outcome.finished else ""))
    if outcome.interrupted:
        raise typer.Exit(130)
