"""`diffcern align`: a predictor that knows what purification does to images, for the method sda."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffcern.cli.aligning import (
    BatchOption,
    EpochsOption,
    GuidanceOption,
    OutOption,
    RateOption,
    SkipOption,
    SolverOption,
    StepsOption,
    bars,
    purification_options,
    sampling_settings,
)
from diffcern.cli.images import PresetOption, PriorOption, SetOption, check_prompt
from diffcern.cli.options import (
    ClassMapOption,
    CompileOption,
    DeviceOption,
    DtypeOption,
    LabelsOption,
    PickleOption,
    PromptOption,
    SeedOption,
    TrustOption,
    parse_class_map,
    parse_labels,
    parse_set,
)
from diffcern.cli.resumable import resumable
from diffcern.cli.training import named_data
from diffcern.errors import UsageError
from diffcern.kinds import KINDS

if TYPE_CHECKING:
    from diffcern.predictors import Predictor
    from diffcern.train.align_maps import ChosenMaps


def align(
    predictor: Annotated[
        str, typer.Option("--predictor", help="timm:NAME, torchvision:NAME/WEIGHTS, hf:..., a folder")
    ],
    generator: Annotated[
        str, typer.Option("--generator", help="a prior that invents the images: of classes, or of maps as --task")
    ],
    prior: PriorOption,
    out: OutOption,
    task: Annotated[str, typer.Option("--task", help="classification, segmentation or depth")] = "classification",
    per_class: Annotated[
        int | None, typer.Option("--per-class", help="classification: images to generate of each class", min=1)
    ] = None,
    maps: Annotated[
        str, typer.Option("--maps", help="segmentation, depth: a data set whose maps images are generated of")
    ] = "",
    count: Annotated[
        int | None, typer.Option("--count", help="segmentation, depth: images to generate, one of each map", min=2)
    ] = None,
    class_names: Annotated[
        str, typer.Option("--class-names", help="of the masks, comma-separated, where --maps names none")
    ] = "",
    labels: LabelsOption = "",
    prompt: PromptOption = None,
    class_map: ClassMapOption = None,
    method: Annotated[str, typer.Option("--method", help="the purification: diffpure, dda or gda")] = "dda",
    preset: PresetOption = "small",
    settings: SetOption = None,
    generator_steps: StepsOption = 50,
    generator_solver: SolverOption = "ddim",
    guidance_scale: GuidanceOption = 1.0,
    skip_resynthesis: SkipOption = False,
    recipe: Annotated[
        str, typer.Option("--recipe", help="paper, paper-resnet50 (published values) or small (small models, maps)")
    ] = "small",
    epochs: EpochsOption = None,
    learning_rate: RateOption = None,
    batch_size: BatchOption = 16,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    compile: CompileOption = False,
    allow_pickle: PickleOption = False,
    trust_remote_code: TrustOption = False,
    seed: SeedOption = 0,
) -> None:
    """Fine-tune a predictor on synthetic images that were purified as its targets will be (SDA)."""
    from diffcern.alignment import PREDICTOR, Alignment
    from diffcern.devices import device_named
    from diffcern.fingerprints import fingerprint
    from diffcern.labels import vocabulary_of
    from diffcern.methods.purification import PURIFIERS
    from diffcern.priors import TextPrior
    from diffcern.run.models import load_models
    from diffcern.run.spec import parse_models
    from diffcern.train.align import align as run
    from diffcern.train.align_maps import align_maps, telling
    from diffcern.train.finetune import MAP_RECIPES, RECIPES

    _check_task(task, per_class, maps, count, class_names, prompt)
    dense = KINDS[task].dense
    if method not in PURIFIERS:
        raise UsageError(f"--method is one of {', '.join(PURIFIERS)}, not {method!r}")
    recipes = MAP_RECIPES if dense else RECIPES
    if recipe not in recipes:
        raise UsageError(f"--recipe is one of {', '.join(recipes)} for {task}, not {recipe!r}")
    options = purification_options(method, preset, parse_set(settings or []), "--method sda", task)
    changes: dict[str, Any] = {"epochs": epochs, "learning_rate": learning_rate}
    chosen = replace(recipes[recipe], **{name: value for name, value in changes.items() if value is not None})
    place, wanted = device_named(device), parse_labels(labels)
    named: dict[str, Any] = {"labels": wanted, "templates": prompt, "class_map": parse_class_map(class_map)}
    named |= {"dtype": dtype, "compile": compile, "allow_pickle": allow_pickle, "trust_remote_code": trust_remote_code}
    models = others = load_models(parse_models({**named, "task": task, "predictor": predictor, "prior": prior}), place)
    if generator != prior:
        given = {**named, "labels": None, "task": task} if dense else named  # maps are told, and no classes
        classes = () if dense else models.task.class_names
        others = load_models(parse_models({**given, "prior": generator}), place, classes)
    check_prompt(prompt, models, others)
    base, purifying, generating = models.predictor, models.prior, others.prior
    assert base is not None  # they were named
    assert purifying is not None
    assert generating is not None
    text = isinstance(generating, TextPrior) and not dense
    reads = vocabulary_of(wanted or base.class_names, prompt) if text else None
    sampling = sampling_settings(generating, generator_steps, generator_solver, guidance_scale)
    purifier = PURIFIERS[method](base, purifying, **options).purifier
    used = {"predictor": base, "generator": generating, "prior": purifying}
    with resumable(f"what is in {out} is kept") as console:
        told: ChosenMaps | None = None
        source = {"data": maps, "class_names": class_names, "class_map": named["class_map"]}
        if dense:
            telling(base, generating)  # do they fit? before maps are read
            told = _maps(out, task, source, count or 0, base, seed)
        alignment = Alignment(
            predictor,
            generator,
            prior,
            {name: fingerprint(model) for name, model in used.items()},
            method,
            options,
            base.class_names,
            per_class or 1,
            sampling,
            not skip_resynthesis,
            asdict(chosen),
            seed,
            reads.sentences if reads else (),
            told.settings(source) if told else {},
        )
        models_of = (base, generating, purifier)
        with bars(console) as report:
            if told:
                losses = align_maps(out, alignment, told, *models_of, batch_size=batch_size, report=report)
            else:
                losses = run(out, alignment, *models_of, batch_size=batch_size, report=report)
    if losses:
        kept = losses.index(min(losses))
        typer.echo(
            f"validation loss {losses[0]:.3f} before, {losses[kept]:.3f} after epoch {kept}, which is kept", err=True
        )
    typer.echo(f"in {out / PREDICTOR}; answer with it: --method sda --set aligned={out}", err=True)


def _check_task(
    task: str, per_class: int | None, maps: str, count: int | None, class_names: str, prompt: list[str] | None
) -> None:
    """Raises UsageError where what is to be generated is not said, or said as for another task."""
    if task not in KINDS:
        raise UsageError(f"--task is one of {', '.join(KINDS)}, not {task!r}")
    if not KINDS[task].dense:
        if maps or count is not None or class_names:
            raise UsageError("--maps, --count and --class-names are for --task segmentation or depth: give --per-class")
        if per_class is None:
            raise UsageError("how many images of each class? give --per-class")
        return
    if per_class is not None:
        raise UsageError(f"--per-class is for classification: images for {task} are of maps, as many as --count")
    if not maps or count is None:
        raise UsageError(f"images for {task} are generated of known maps: give --maps DATASET and --count")
    if prompt:
        raise UsageError(f"images for {task} are generated of maps and without words: leave --prompt out")


def _maps(out: Path, task: str, source: Mapping[str, Any], count: int, predictor: Predictor, seed: int) -> ChosenMaps:
    """Those that the folder holds, else of the data set."""
    from diffcern.run.models import renamed
    from diffcern.train.align_maps import choose_maps, kept_maps

    kept = kept_maps(out, task, source, count, seed)
    if kept is not None:
        return kept
    dataset = named_data(source["data"], source["class_names"], task)
    names = renamed(getattr(dataset, "mask_names", ()), source["class_map"])
    return choose_maps(dataset, task, names, predictor.class_names, count, seed)
