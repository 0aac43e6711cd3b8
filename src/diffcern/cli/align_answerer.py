"""`diffcern align-answerer`: a model that answers questions and knows what purification does to images, for sda."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Annotated, Any

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
from diffcern.cli.images import PresetOption, PriorOption, SetOption
from diffcern.cli.options import CompileOption, DeviceOption, DtypeOption, PickleOption, SeedOption, parse_set
from diffcern.cli.resumable import resumable
from diffcern.errors import UsageError


def align_answerer(
    predictor: Annotated[str, typer.Option("--predictor", help="a LLaVA: hf:OWNER/NAME or a folder")],
    generator: Annotated[str, typer.Option("--generator", help="a text-to-image prior, which invents the images")],
    prior: PriorOption,
    count: Annotated[int, typer.Option("--count", help="images to generate", min=2)],
    out: OutOption,
    captions: Annotated[
        str,
        typer.Option(help="embedded:scenes/train, or FILE.parquet with columns caption, question, answer, choices"),
    ] = "embedded:scenes/train",
    method: Annotated[str, typer.Option("--method", help="the purification: diffpure or dda")] = "dda",
    preset: PresetOption = "small",
    settings: SetOption = None,
    generator_steps: StepsOption = 50,
    generator_solver: SolverOption = "ddim",
    guidance_scale: GuidanceOption = 1.0,
    skip_resynthesis: SkipOption = False,
    epochs: EpochsOption = None,
    learning_rate: RateOption = None,
    batch_size: BatchOption = 16,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    compile: CompileOption = False,
    allow_pickle: PickleOption = False,
    seed: SeedOption = 0,
) -> None:
    """Fine-tune a model that answers questions on synthetic images, purified as its targets will be (SDA)."""
    from diffcern.alignment import PREDICTOR, Alignment
    from diffcern.devices import device_named
    from diffcern.fingerprints import fingerprint
    from diffcern.methods.presets import QUESTIONS
    from diffcern.methods.purification import PURIFIERS, unused_predictor
    from diffcern.predictors.question_answering import load_answerer
    from diffcern.priors import TextPrior
    from diffcern.run.models import load_models
    from diffcern.run.spec import parse_models
    from diffcern.train.align_answerer import Tuning, asked_images, digest_of, told_of, tune

    if method not in ("diffpure", "dda"):
        raise UsageError(f"--method is diffpure or dda, not {method!r}")
    given = parse_set(settings or [])
    options = purification_options(method, preset, given, "`diffcern answer --method sda`", QUESTIONS)
    changes: dict[str, Any] = {"epochs": epochs, "learning_rate": learning_rate}
    tuning = replace(Tuning(), **{name: value for name, value in changes.items() if value is not None})
    place = device_named(device)
    answerer = load_answerer(predictor, allow_pickle=allow_pickle).to(place)
    named: dict[str, Any] = {"dtype": dtype, "compile": compile, "allow_pickle": allow_pickle}
    purifying = load_models(parse_models({**named, "prior": prior}), place).prior
    generating = (
        purifying if generator == prior else load_models(parse_models({**named, "prior": generator}), place).prior
    )
    assert purifying is not None  # they were named
    if not isinstance(generating, TextPrior):
        raise UsageError(f"--generator {generator} does not read captions: give a text-to-image prior")
    sampling = sampling_settings(generating, generator_steps, generator_solver, guidance_scale)
    purifier = PURIFIERS[method](unused_predictor(), purifying, **options).purifier
    told = told_of(captions, count, seed)
    prints = {name: fingerprint(model) for name, model in (("predictor", answerer), ("generator", generating))}
    prints |= {"prior": fingerprint(purifying), "questions": digest_of(told)}
    alignment = Alignment(
        predictor,
        generator,
        prior,
        prints,
        method,
        options,
        (),  # every question brings its own answers
        1,
        sampling,
        not skip_resynthesis,
        asdict(tuning),
        seed,
        tuple((item.caption,) for item in told),
    )
    with resumable(f"what is in {out} is kept") as console:
        with bars(console) as report:
            data = asked_images(out, alignment, told, generating, purifier, batch_size=batch_size, report=report)
        losses = tune(answerer, data, tuning, out / PREDICTOR, seed=seed)
    if losses:
        kept = "which is kept" if losses[1] < losses[0] else "so that the weights stay as they were"
        typer.echo(f"validation loss {losses[0]:.3f} before, {losses[1]:.3f} after, {kept}", err=True)
    typer.echo(f"in {out / PREDICTOR}; answer with it: --method sda --set aligned={out}", err=True)
