"""`diffcern purify`: images into the domain that a prior knows, as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffcern.cli.images import (
    ImagesArgument,
    PresetOption,
    PriorOption,
    SetOption,
    SideOption,
)
from diffcern.cli.options import (
    CompileOption,
    DeviceOption,
    DtypeOption,
    PickleOption,
    SeedOption,
    StrictOption,
    ViewOption,
    parse_set,
    parse_view,
)
from diffcern.cli.rows import collect
from diffcern.errors import DiffcernError, UsageError


def purify(
    images: ImagesArgument,
    prior: PriorOption,
    out: Annotated[Path, typer.Option("--out", "-o", help="folder; images that are there already are not made again")],
    method: Annotated[str, typer.Option("--method", help="diffpure, dda or gda")] = "dda",
    predictor: Annotated[str, typer.Option("--predictor", help="for gda, whose guide looks through it")] = "",
    solver: Annotated[str, typer.Option("--solver", help="ddpm, ddim, dpm-solver++, unipc, one-shot, ...")] = "",
    start: Annotated[int | None, typer.Option("--start", help="the timestep that images are noised to", min=0)] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="from there to the image", min=1)] = None,
    preset: PresetOption = "small",
    settings: SetOption = None,
    batch_size: Annotated[int, typer.Option("--batch-size", help="images at a time; changes no result", min=1)] = 16,
    view: ViewOption = "centre",
    max_side: SideOption = 4096,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    compile: CompileOption = False,
    allow_pickle: PickleOption = False,
    seed: SeedOption = 0,
    strict: StrictOption = False,
) -> None:
    """Purify images: noise them, and denoise them with a prior, guided by what they were.

    Writes PNG files named after their inputs, and a sheet of some before and after: the centre square of each image in
    the prior's resolution, or with --view whole all of it in its own.
    """
    from diffcern.data import load_dataset
    from diffcern.devices import device_named
    from diffcern.methods import checked_options
    from diffcern.methods.presets import preset_options
    from diffcern.methods.purification import PURIFIERS, unused_predictor
    from diffcern.predictors import load_predictor
    from diffcern.run.models import load_models
    from diffcern.run.purify import check_settings, purified, write_sheet
    from diffcern.run.spec import parse_models

    if method not in PURIFIERS:
        raise UsageError(f"--method is one of {', '.join(PURIFIERS)}, not {method!r}")
    if method == "gda" and not predictor:
        raise UsageError("gda is guided by a classifier: give --predictor")
    given = {"solver": solver or None, "start": start, "steps": steps}
    options = {**preset_options(method, preset), **parse_set(settings or [])}
    options |= {name: value for name, value in given.items() if value is not None}
    place = device_named(device)
    dataset = load_dataset(images, max_side=max_side)
    named = parse_models({"prior": prior, "dtype": dtype, "compile": compile, "allow_pickle": allow_pickle})
    models = load_models(named, place)
    looks = load_predictor(predictor).to(place) if predictor else unused_predictor()
    built = PURIFIERS[method](looks, models.prior, **checked_options(method, options))
    shown = parse_view(view)
    check_settings(out, {"identity": built.purifier.identity, "seed": seed, "max_side": max_side, "view": shown})
    rows = purified(dataset, built.purifier, out, view=shown, seed=seed, batch_size=batch_size, device=place)
    kept = f"what is in {out} is kept: run again to go on"
    written = collect(None, rows, len(dataset), "purifying", kept, built.evaluations)
    skipped = sum(bool(row["error"]) for row in written)
    there = len(dataset) - len(written)
    made = f"{len(written) - skipped} images purified into {out}, {there} were there, {skipped} skipped"
    if skipped == len(dataset):
        raise DiffcernError(made)
    typer.echo(f"{made}; look at {write_sheet(dataset, out, shown)}", err=True)
    if skipped and strict:
        raise typer.Exit(1)
