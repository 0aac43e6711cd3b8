"""SDA: a model fine-tuned on images that a prior invented, purified as its targets will be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, field
from dataclasses import dataclass as plain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator
from pydantic.dataclasses import dataclass

from diffcern.errors import UsageError
from diffcern.fields import (
    ClassMap,
    Labels,
    Options,
    Preset,
    PriorName,
    Spelling,
    Templates,
    TrustRemoteCode,
    help_of,
    parsed_names,
)
from diffcern.jobs.base import CHECKED, Events, Silent, keeping
from diffcern.jobs.models import OnModels
from diffcern.jobs.spread import Spread

if TYPE_CHECKING:
    from diffcern.jobs.subjects import Drawn, Subject
    from diffcern.priors import Prior
    from diffcern.train.stages import Studio


@plain(frozen=True)
class Aligned:
    """out: the folder, for `aligned=` of the method sda. losses: of the validation, before any epoch and after each;
    empty where all had been done before."""

    out: Path
    losses: list[float]


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class Align(OnModels, Spread):
    """Fine-tune a model on synthetic images that were purified as its targets will be (SDA)."""

    command = "align"

    predictor: Annotated[str, help_of("timm:NAME, torchvision:NAME/WEIGHTS, hf:..., a folder; for questions a LLaVA")]
    generator: Annotated[str, help_of("a prior that invents the images: of classes, maps or captions, as the task")]
    prior: PriorName
    task: Annotated[str, help_of("classification, segmentation, depth or qa (question answering)")] = "classification"
    per_class: Annotated[int | None, help_of("classification: images to generate of each class", ge=1)] = None
    count: Annotated[int | None, help_of("other tasks: images to generate, one of each map or caption", ge=2)] = None
    maps: Annotated[str | None, help_of("segmentation, depth: a data set whose maps images are generated of")] = None
    captions: Annotated[
        str | None,
        help_of(
            "qa: embedded:scenes/train (the default), or FILE.parquet with columns caption, question, answer, choices"
        ),
    ] = None
    class_names: Annotated[
        tuple[str, ...] | None,
        BeforeValidator(parsed_names),
        help_of("of the masks, comma-separated, where --maps names none"),
        Spelling(text=str),
    ] = None
    labels: Labels = None
    templates: Templates = None
    class_map: ClassMap = None
    method: Annotated[str, help_of("the purification: diffpure, dda or gda")] = "dda"
    preset: Preset = "small"
    options: Options = field(default_factory=dict)
    generator_steps: Annotated[int, help_of("from noise to an image", ge=1)] = 50
    generator_solver: Annotated[str, help_of("ddpm, ddim, dpm-solver++, ...")] = "ddim"
    guidance_scale: Annotated[float, help_of("classifier-free; 1 is none", allow_inf_nan=False)] = 1.0
    skip_resynthesis: Annotated[bool, help_of("fine-tune on images that are not purified (an ablation)")] = False
    recipe: Annotated[
        str | None, help_of("paper, paper-resnet50 (published values) or small (small models, maps; the default)")
    ] = None
    epochs: Annotated[int | None, help_of("of fine-tuning", ge=1)] = None
    learning_rate: Annotated[float | None, help_of("of fine-tuning", ge=0, allow_inf_nan=False)] = None
    batch_size: Annotated[int, help_of("images generated or purified at a time", ge=1)] = 16
    trust_remote_code: TrustRemoteCode = False

    def carry_out(self, out: Path | None, *, overwrite: bool = False, events: Events = Silent()) -> Aligned:
        """overwrite: has no meaning here: what is in `out` is gone on with."""
        from diffcern.alignment import Alignment
        from diffcern.files import writing
        from diffcern.fingerprints import fingerprint
        from diffcern.run.executors import InProcess
        from diffcern.train.align import align

        if out is None:
            raise UsageError("images and a model are files: give out, a folder")
        subject, executor = self.subject(), self.executor(self.device, events) or InProcess()
        with keeping(lambda: f"what is in {out} is kept: run the same command to continue"):
            drawn, options, sampling, studio = self.loaded(subject, out)
            used = {"predictor": drawn.learnt, "generator": drawn.generator, "prior": drawn.prior}
            prints = {name: fingerprint(model) for name, model in used.items()}
            material = drawn.material(out)
            alignment = Alignment(
                *(self.predictor, self.generator, self.prior),
                fingerprints={**prints, **material.digest},
                method=self.method,
                options=options,
                classes=drawn.classes,
                sampling=sampling,
                resynthesis=not self.skip_resynthesis,
                recipe=asdict(subject.recipe),
                seed=self.seed,
                **{"per_class": 1, **material.stated},
            )
            how: dict[str, Any] = {"batch_size": self.batch_size}
            here = isinstance(executor, InProcess)
            make = (lambda: studio) if here else Elsewhere(self, out.absolute())
            with events.stages() as report, self.threads(), writing(out):
                losses = align(out, alignment, material, drawn.learner, make, executor, **how, report=report)
        return Aligned(out, losses)

    def subject(self) -> Subject:
        """What the task is about. Raises UsageError for a task that there is not, and as `Subject`."""
        from diffcern.jobs.subjects import SUBJECTS

        if self.task not in SUBJECTS:
            raise UsageError(f"--task is one of {', '.join(SUBJECTS)}, not {self.task!r}")
        return SUBJECTS[self.task](self)

    def loaded(self, subject: Subject, out: Path) -> tuple[Drawn, dict[str, Any], dict[str, Any], Studio]:
        """The models, the options of the purification and of sampling, and what makes images with them. Raises
        UsageError for a material that the generator cannot be told."""
        from diffcern.devices import device_named
        from diffcern.methods.purification import PURIFIERS
        from diffcern.train.stages import Studio

        options = purification_options(self.method, self.preset, self.options, subject.answering, subject.task)
        drawn = subject.load(device_named(self.device))
        sampling = sampling_settings(drawn.generator, self.generator_steps, self.generator_solver, self.guidance_scale)
        purifier = PURIFIERS[self.method](drawn.guide, drawn.prior, **options).purifier
        told, rows = drawn.material(out).telling(drawn.generator), {"rows": self.batch_size}
        studio = Studio(out, told, drawn.generator, purifier, {**sampling, **rows}, self.seed)
        return drawn, options, sampling, studio


@plain(frozen=True)
class Elsewhere:
    """Loads what makes an alignment's images where they are made. out: a folder that is there as well."""

    job: Align
    out: Path

    def __call__(self) -> Studio:
        return self.job.loaded(self.job.subject(), self.out)[-1]


def purification_options(
    method: str, preset: str, given: Mapping[str, Any], answering: str, task: str
) -> dict[str, Any]:
    """All options of a purification, but for those that concern its answers; answering: the command that takes these.

    Raises UsageError for unknown ones and for those that concern answers.
    """
    from diffcern.methods import checked_options
    from diffcern.methods.options import options_of
    from diffcern.methods.presets import over_preset
    from diffcern.methods.purification import ANSWERING, PURIFIERS

    if ANSWERING & given.keys():
        names = ", ".join(sorted(ANSWERING & given.keys()))
        raise UsageError(f"{names}: options of {answering}, not of the purification: leave them out here")
    checked = checked_options(method, over_preset(method, preset, given, task))
    return options_of(PURIFIERS[method])(**checked).model_dump(exclude=set(ANSWERING))


def sampling_settings(generator: Prior, steps: int, solver: str, guidance_scale: float) -> dict[str, Any]:
    """Of `sampling.sample`. Raises UsageError where they do not fit the generator."""
    from diffcern.purifier import Route

    Route(generator.num_timesteps - 1, steps, solver).evaluations(generator)
    return {"steps": steps, "solver": solver, "guidance_scale": guidance_scale}
