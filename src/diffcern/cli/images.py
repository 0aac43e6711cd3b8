"""`diffcern adapt` and `diffcern classify`: a folder of images in, a table out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from diffcern.cli.options import DeviceOption, JsonOption, SeedOption, StrictOption, parse_set
from diffcern.errors import UsageError

ImagesArgument = Annotated[
    str, typer.Argument(help="a folder of images, one image, or a data set such as parquet:PATH")
]
PriorOption = Annotated[str, typer.Option("--prior", help="embedded:digits or a folder")]
OutFile = Annotated[Path, typer.Option("--out", help="result file: .parquet, .csv or .json")]
PresetOption = Annotated[str, typer.Option("--preset", help="paper (published values) or small (small models)")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="name=value, an option of the method")]
SideOption = Annotated[int | None, typer.Option("--max-side", help="shrink larger images while loading", min=1)]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="replace an existing result file")]


def adapt(
    images: ImagesArgument,
    predictor: Annotated[str, typer.Option("--predictor", help="embedded:digits or a folder")],
    out: OutFile,
    prior: Annotated[
        str, typer.Option("--prior", help="embedded:digits or a folder; not for source, tent, bn-adapt")
    ] = "",
    method: Annotated[str, typer.Option("--method", help="see `diffcern list methods`")] = "diffusion-tta",
    preset: PresetOption = "small",
    settings: SetOption = None,
    online: Annotated[bool, typer.Option("--online/--episodic", help="carry on from image to image")] = False,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1)] = 1,
    max_side: SideOption = 4096,
    device: DeviceOption = "auto",
    seed: SeedOption = 0,
    strict: StrictOption = False,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Adapt a predictor to each image by generative feedback and predict, before and after."""
    from diffcern.data import load_dataset
    from diffcern.devices import device_named
    from diffcern.methods import build_method
    from diffcern.methods.presets import preset_options
    from diffcern.predictors import load_predictor
    from diffcern.priors import load_prior
    from diffcern.run.journal import Journal
    from diffcern.run.predict import adapt_rows
    from diffcern.tasks import Classification

    options = {**preset_options(method, preset), **parse_set(settings or [])}
    dataset = load_dataset(images, max_side=max_side)
    where = device_named(device)
    model = load_predictor(predictor).to(where)
    guide = load_prior(prior).to(where) if prior else None
    task = Classification(model.class_names, guide.class_names if guide else model.class_names)
    built = build_method(method, model, guide, task, options)
    if batch_size > 1 and not online and not built.needs_batch:
        raise UsageError(f"{method} answers single images when episodic: leave --batch-size at 1, or give --online")
    chosen = {"images": images, "predictor": predictor, "prior": prior, "method": method, "options": options}
    journal = Journal(out, {**chosen, "online": online, "batch_size": batch_size, "seed": seed}, overwrite=overwrite)
    if online or built.needs_batch:
        journal.restart()  # an answer depends on the images before it or beside it
    rows = adapt_rows(
        dataset,
        built,
        model,
        online=online,
        batch_size=batch_size,
        seed=seed,
        device=where,
        done={row["id"] for row in journal.rows},
    )
    _write(journal, rows, len(dataset), "adapting", strict, as_json)


def classify(
    images: ImagesArgument,
    prior: PriorOption,
    out: Annotated[Path | None, typer.Option("--out", help="result file: .parquet, .csv or .json")] = None,
    labels: Annotated[str, typer.Option("--labels", help="comma-separated, or a text file; default: all")] = "",
    preset: PresetOption = "small",
    settings: SetOption = None,
    max_side: SideOption = 4096,
    device: DeviceOption = "auto",
    seed: SeedOption = 0,
    strict: StrictOption = False,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Classify images with the prior alone: the label whose condition denoises the image best."""
    from diffcern.data import load_dataset
    from diffcern.devices import device_named
    from diffcern.methods import build_method
    from diffcern.methods.presets import preset_options
    from diffcern.priors import load_prior
    from diffcern.run.journal import Journal
    from diffcern.run.predict import classify_rows
    from diffcern.tasks import Classification

    options = {**preset_options("diffusion-classifier", preset), **parse_set(settings or [])}
    dataset = load_dataset(images, max_side=max_side)
    where = device_named(device)
    guide = load_prior(prior).to(where)
    names = _labels(labels) or guide.class_names
    task = Classification(names, guide.class_names)
    built = build_method("diffusion-classifier", None, guide, task, options)
    chosen = {"images": images, "prior": prior, "labels": list(names), "options": options, "seed": seed}
    journal = Journal(out, chosen, overwrite=overwrite) if out else None
    done = {row["id"] for row in journal.rows} if journal else set()
    rows = classify_rows(dataset, built, tuple(names), seed=seed, device=where, done=done)
    _write(journal, rows, len(dataset), "classifying", strict, as_json)


def _labels(text: str) -> tuple[str, ...]:
    """Labels from "cat,dog" or from a text file with one per line."""
    lines = Path(text).read_text().splitlines() if text and Path(text).is_file() else text.split(",")
    return tuple(line.strip() for line in lines if line.strip())


def _write(journal: Any, rows: Iterator[dict[str, Any]], total: int, what: str, strict: bool, as_json: bool) -> None:
    """Writes rows as they come, prints the table (its first rows, for a long one) and what was skipped."""
    import json

    console = Console(stderr=True, soft_wrap=True)
    written: list[dict[str, Any]] = list(journal.rows) if journal else []
    if written:
        console.print(f"continuing: {len(written)} of {total} are done")
    try:
        for row in track(rows, what, total=total - len(written), console=console, transient=True):
            if journal:
                journal.add(row)
            written.append(row)
            if row["error"]:
                console.print(f"skipped {row['id']}: {row['error']}", markup=False)
    except KeyboardInterrupt:
        kept = f"{len(journal.rows)} rows are kept: run the same command to continue" if journal else "nothing is kept"
        console.print(f"interrupted; {kept}")
        raise typer.Exit(130) from None
    if journal:
        journal.finish()
    if as_json:
        typer.echo(json.dumps(written, indent=1))
    else:
        Console().print(_table([row for row in written if not row["error"]]))
    skipped = sum(bool(row["error"]) for row in written)
    if journal:
        console.print(f"{len(written) - skipped} images in {journal.out}" + (f", {skipped} skipped" if skipped else ""))
    elif skipped:
        console.print(f"{skipped} images skipped")
    if skipped and (strict or skipped == len(written)):
        raise typer.Exit(1)


def _table(rows: list[dict[str, Any]], limit: int = 20) -> Table:
    """The first rows; costs and errors stay in the file."""
    hidden = {"error", "seconds", "nfe_backward", "steps", "loss_first", "loss_last"}
    columns = [name for name in (rows[0] if rows else {"id": None}) if name not in hidden]
    more = f" (first {limit} of {len(rows)})" if len(rows) > limit else ""
    table = Table(*columns, caption=f"{len(rows)} images{more}", box=None, header_style="bold")
    for row in rows[:limit]:
        table.add_row(*(_cell(row.get(name)) for name in columns))
    return table


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return "" if value is None else str(value)
