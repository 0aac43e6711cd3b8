"""`diffcern adapt` and `diffcern classify`: a folder of images in, a table out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffcern.cli.options import (
    ClassMapOption,
    CompileOption,
    DeviceOption,
    DtypeOption,
    JsonOption,
    LabelsOption,
    PickleOption,
    PromptOption,
    SeedOption,
    StrictOption,
    TrustOption,
    ViewOption,
    parse_class_map,
    parse_labels,
    parse_set,
    parse_view,
)
from diffcern.cli.rows import write_rows
from diffcern.errors import UsageError
from diffcern.kinds import KINDS

if TYPE_CHECKING:
    from diffcern.data import Dataset
    from diffcern.methods import Method
    from diffcern.run.models import LoadedModels

ImagesArgument = Annotated[
    str, typer.Argument(help="a folder of images, one image, or a data set such as parquet:PATH")
]
PriorOption = Annotated[str, typer.Option("--prior", help="hf:OWNER/NAME, embedded:digits or a folder")]
OutFile = Annotated[Path, typer.Option("--out", help="result file: .parquet, .csv or .json")]
PresetOption = Annotated[str, typer.Option("--preset", help="paper (published values) or small (small models)")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="name=value, an option of the method")]
SideOption = Annotated[
    int | None,
    typer.Option("--max-side", help="shrink larger images (to 1,000 megapixels) in loading", min=1),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="replace an existing result file")]


def adapt(
    images: ImagesArgument,
    predictor: Annotated[
        str,
        typer.Option(
            "--predictor", help="timm:NAME, torchvision:NAME/WEIGHTS, hf:OWNER/NAME, embedded:digits or a folder"
        ),
    ],
    out: OutFile,
    prior: Annotated[
        str, typer.Option("--prior", help="hf:OWNER/NAME, embedded:digits or a folder; not for source, tent, bn-adapt")
    ] = "",
    task: Annotated[str, typer.Option("--task", help="classification, segmentation or depth")] = "classification",
    method: Annotated[str, typer.Option("--method", help="see `diffcern list methods`")] = "diffusion-tta",
    labels: LabelsOption = "",
    prompt: PromptOption = None,
    class_map: ClassMapOption = None,
    preset: PresetOption = "small",
    settings: SetOption = None,
    online: Annotated[bool, typer.Option("--online/--episodic", help="carry on from image to image")] = False,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1)] = 1,
    shuffle: Annotated[
        bool, typer.Option("--shuffle", help="the images in a random order, where the order matters")
    ] = False,
    max_side: SideOption = 4096,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    compile: CompileOption = False,
    allow_pickle: PickleOption = False,
    trust_remote_code: TrustOption = False,
    seed: SeedOption = 0,
    strict: StrictOption = False,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Adapt a predictor to each image by generative feedback and predict, before and after.

    Segmentation and depth write their maps into the folder named like --out without its suffix.
    """
    from diffcern.run.journal import Journal, check_out
    from diffcern.run.maps import check_maps_folder
    from diffcern.run.order import shuffled, warned
    from diffcern.run.predict import adapt_rows, answers, digests

    check_out(out, overwrite)
    names: dict[str, Any] = {
        "predictor": predictor,
        "prior": prior or None,
        "task": task,
        "labels": parse_labels(labels),
        "templates": prompt,
    }
    names |= {"dtype": dtype, "compile": compile, "allow_pickle": allow_pickle, "trust_remote_code": trust_remote_code}
    names["class_map"] = parse_class_map(class_map)
    dataset, models, built, chosen = _prepare(images, names, method, preset, settings, max_side, device)
    assert models.predictor is not None  # it was named
    if batch_size > 1 and not online and not built.needs_batch:
        raise UsageError(f"{method} answers single images when episodic: leave --batch-size at 1, or give --online")
    if built.needs_batch and min(batch_size, len(dataset)) == 1 and not chosen["options"].get("source_count"):
        raise UsageError(
            f"{method} reads the statistics of a batch, and one image has none: give several images and --batch-size "
            "(as published: 64 to 200, with --online)"
        )
    beside = online or built.needs_batch  # an answer depends on the images before it or beside it
    if shuffle and not beside:
        raise UsageError(f"--shuffle is for --online and what reads a batch: {method} answers image by image")
    chosen |= {
        "loaded": built.loaded,
        "fingerprints": models.fingerprints(),
        "online": online,
        "batch_size": batch_size,
        "seed": seed,
        **({"shuffle": True} if shuffle else {}),
    }
    if KINDS[task].dense:
        check_maps_folder(out.with_suffix(""), Path(images))
    journal = Journal(out, chosen, overwrite=overwrite, digest=None if beside else digests(dataset))
    if beside:
        journal.restart()  # no row is kept, of whatever image
    given = answers(
        shuffled(dataset, seed) if shuffle else dataset,
        built,
        models.predictor,
        online=online,
        batch_size=batch_size,
        seed=seed,
        device=models.device,
        done={row["id"] for row in journal.rows},
    )
    if not KINDS[task].dense:
        watched = warned(given, lambda text: typer.echo(text, err=True)) if beside and not shuffle else given
        rows = adapt_rows(models.predictor, watched)
    else:
        from diffcern.run.maps import adapt_maps
        from diffcern.run.purify import file_names

        rows = adapt_maps(models.predictor, given, file_names(dataset.ids), out.with_suffix(""))
    write_rows(journal, rows, len(dataset), "adapting", strict, as_json, built.evaluations)


def classify(
    images: ImagesArgument,
    prior: PriorOption,
    out: Annotated[Path | None, typer.Option("--out", help="result file: .parquet, .csv or .json")] = None,
    labels: LabelsOption = "",
    prompt: PromptOption = None,
    class_map: ClassMapOption = None,
    preset: PresetOption = "small",
    settings: SetOption = None,
    view: ViewOption = "centre",
    max_side: SideOption = 4096,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    compile: CompileOption = False,
    allow_pickle: PickleOption = False,
    seed: SeedOption = 0,
    strict: StrictOption = False,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Classify images with the prior alone: the label whose condition denoises the image best."""
    from diffcern.run.journal import Journal, check_out
    from diffcern.run.predict import classify_rows, digests

    if out:
        check_out(out, overwrite)
    names: dict[str, Any] = {"prior": prior, "labels": parse_labels(labels), "templates": prompt}
    names |= {"dtype": dtype, "compile": compile, "allow_pickle": allow_pickle}
    names["class_map"] = parse_class_map(class_map)
    method, settings = "diffusion-classifier", [f"view={parse_view(view)}", *(settings or [])]
    dataset, models, built, chosen = _prepare(images, names, method, preset, settings, max_side, device)
    classes = models.task.class_names
    journal = None
    if out:
        chosen |= {"fingerprints": models.fingerprints(), "seed": seed}
        journal = Journal(out, chosen, overwrite=overwrite, digest=digests(dataset))
    done = {row["id"] for row in journal.rows} if journal else set()
    rows = classify_rows(dataset, built, classes, seed=seed, device=models.device, done=done)
    write_rows(journal, rows, len(dataset), "classifying", strict, as_json, built.evaluations)


def _prepare(
    images: str,
    names: Mapping[str, Any],
    method: str,
    preset: str,
    settings: list[str] | None,
    max_side: int | None,
    device: str,
) -> tuple[Dataset, LoadedModels, Method, dict[str, Any]]:
    """The images, the models, the method over them, and these choices, by which a journal knows its own."""
    from diffcern.data import load_dataset
    from diffcern.devices import device_named
    from diffcern.methods.presets import preset_options
    from diffcern.run.models import load_models
    from diffcern.run.spec import parse_models

    named = parse_models(names)
    options = {**preset_options(method, preset, named.task), **parse_set(settings or [])}
    dataset = load_dataset(images, max_side=max_side)
    models = load_models(named, device_named(device))
    check_prompt(names["templates"], models)
    chosen = {"images": images, "max_side": max_side, **names, "method": method, "options": options}
    return dataset, models, models.method(method, options), chosen


def check_prompt(templates: Sequence[str] | None, *loaded: LoadedModels) -> None:
    """Raises UsageError for sentences that none of the models reads."""
    if templates and not any(models.reads_text for models in loaded):
        raise UsageError("--prompt is for models that read text, and none here does: leave it out")
