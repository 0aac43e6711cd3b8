"""`diffcern align`: a predictor that knows what purification does to images, for the method sda."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

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
from diffcern.errors import UsageError


def align(
    predictor: Annotated[
        str, typer.Option("--predictor", help="timm:NAME, torchvision:NAME/WEIGHTS, hf:..., a folder")
    ],
    generator: Annotated[str, typer.Option("--generator", help="a class-conditional prior, which invents the images")],
    prior: PriorOption,
    per_class: Annotated[int, typer.Option("--per-class", help="images to generate for each class", min=1)],
    out: Annotated[Path, typer.Option("--out", "-o", help="folder; the same command again continues it")],
    labels: LabelsOption = "",
    prompt: PromptOption = None,
    class_map: ClassMapOption = None,
    method: Annotated[str, typer.Option("--method", help="the purification: diffpure, dda or gda")] = "dda",
    preset: PresetOption = "small",
    settings: SetOption = None,
    generator_steps: Annotated[int, typer.Option("--generator-steps", help="from noise to an image", min=1)] = 50,
    generator_solver: Annotated[str, typer.Option("--generator-solver", help="ddpm, ddim, dpm-solver++, ...")] = "ddim",
    guidance_scale: Annotated[float, typer.Option("--guidance-scale", help="classifier-free; 1 is none")] = 1.0,
    skip_resynthesis: Annotated[
        bool, typer.Option("--skip-resynthesis", help="fine-tune on images that are not purified (an ablation)")
    ] = False,
    recipe: Annotated[
        str, typer.Option("--recipe", help="paper, paper-resnet50 (published values) or small (small models)")
    ] = "small",
    epochs: Annotated[int | None, typer.Option("--epochs", help="of fine-tuning, over the recipe's", min=1)] = None,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", help="over the recipe's", min=0.0)] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", help="images generated or purified at a time", min=1)] = 16,
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
    from diffcern.methods import checked_options, options_of
    from diffcern.methods.presets import preset_options
    from diffcern.methods.purification import ANSWERING, PURIFIERS
    from diffcern.priors import TextPrior
    from diffcern.purifier import Route
    from diffcern.run.models import load_models
    from diffcern.run.spec import parse_models
    from diffcern.train.align import align as run
    from diffcern.train.finetune import RECIPES

    if method not in PURIFIERS:
        raise UsageError(f"--method is one of {', '.join(PURIFIERS)}, not {method!r}")
    if recipe not in RECIPES:
        raise UsageError(f"--recipe is one of {', '.join(RECIPES)}, not {recipe!r}")
    given = parse_set(settings or [])
    if ANSWERING & given.keys():
        raise UsageError(
            f"{', '.join(sorted(ANSWERING & given.keys()))}: options of --method sda, not of the purification"
        )
    checked = checked_options(method, {**preset_options(method, preset), **given})
    options = options_of(PURIFIERS[method])(**checked).model_dump(exclude=set(ANSWERING))
    changes: dict[str, Any] = {"epochs": epochs, "learning_rate": learning_rate}
    chosen = replace(RECIPES[recipe], **{name: value for name, value in changes.items() if value is not None})
    place, wanted = device_named(device), parse_labels(labels)
    named: dict[str, Any] = {"labels": wanted, "templates": prompt, "class_map": parse_class_map(class_map)}
    named |= {"dtype": dtype, "compile": compile, "allow_pickle": allow_pickle, "trust_remote_code": trust_remote_code}
    models = others = load_models(parse_models({**named, "predictor": predictor, "prior": prior}), place)
    if generator != prior:
        others = load_models(parse_models({**named, "prior": generator}), place, models.task.class_names)
    check_prompt(prompt, models, others)
    base, purifying, generating = models.predictor, models.prior, others.prior
    assert base is not None  # they were named
    assert purifying is not None
    assert generating is not None
    reads = vocabulary_of(wanted or base.class_names, prompt) if isinstance(generating, TextPrior) else None
    sampling = {"steps": generator_steps, "solver": generator_solver, "guidance_scale": guidance_scale}
    Route(generating.num_timesteps - 1, generator_steps, generator_solver).evaluations(generating)  # does it fit?
    purifier = PURIFIERS[method](base, purifying, **options).purifier
    used = {"predictor": base, "generator": generating, "prior": purifying}
    alignment = Alignment(
        predictor,
        generator,
        prior,
        {name: fingerprint(model) for name, model in used.items()},
        method,
        options,
        base.class_names,
        per_class,
        sampling,
        not skip_resynthesis,
        asdict(chosen),
        seed,
        reads.sentences if reads else (),
    )
    console = Console(stderr=True, soft_wrap=True, markup=False)
    try:
        with bars(console) as report:
            losses = run(out, alignment, base, generating, purifier, batch_size=batch_size, report=report)
    except KeyboardInterrupt:
        console.print(f"interrupted; what is in {out} is kept: run the same command to continue")
        raise typer.Exit(130) from None
    if losses:
        kept = losses.index(min(losses))
        typer.echo(
            f"validation loss {losses[0]:.3f} before, {losses[kept]:.3f} after epoch {kept}, which is kept", err=True
        )
    typer.echo(f"in {out / PREDICTOR}; answer with it: --method sda --set aligned={out}", err=True)


@contextmanager
def bars(console: Console) -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar for each stage, that is for each first word of what is reported."""
    columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        shown: dict[str, TaskID] = {}

        def report(done: int, total: int, what: str) -> None:
            stage = what.partition(",")[0]
            if stage not in shown:
                shown[stage] = progress.add_task(what)
            progress.update(shown[stage], completed=done, total=total, description=what)

        yield report
