"""What jobs over images have in common: the images, the models, and a method over these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from diffcern.errors import UsageError

if TYPE_CHECKING:
    from diffcern.data import Dataset
    from diffcern.methods import Method
    from diffcern.run.models import LoadedModels


class OverImages(Protocol):
    """The fields that `asked` reads of a job."""

    @property
    def images(self) -> str: ...
    @property
    def max_side(self) -> int | None: ...
    @property
    def labels(self) -> Any: ...
    @property
    def templates(self) -> Sequence[str] | None: ...
    @property
    def class_map(self) -> Mapping[str, str] | None: ...
    @property
    def preset(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def compile(self) -> bool: ...
    @property
    def allow_pickle(self) -> bool: ...


@dataclass(frozen=True)
class Asked:
    """settings: how images, models and method were chosen, by which rows know their own."""

    dataset: Dataset
    models: LoadedModels
    method: Method
    settings: dict[str, Any]


def asked(job: OverImages, names: Mapping[str, Any], method: str, options: Mapping[str, Any]) -> Asked:
    """Loads what a job names. names: its models, and what else of `spec.Models` it says beside the common fields.

    options: of the method, over those of the job's preset. Raises as `Job.carry_out`.
    """
    from diffcern.data import load_dataset
    from diffcern.devices import device_named
    from diffcern.methods.presets import preset_options
    from diffcern.run.models import load_models
    from diffcern.run.spec import parse_models

    common = ("labels", "templates", "class_map", "dtype", "compile", "allow_pickle")
    given = {**names, **{name: getattr(job, name) for name in common}}
    named = parse_models(given)
    chosen = {**preset_options(method, job.preset, named.task), **options}
    dataset = load_dataset(job.images, max_side=job.max_side)
    models = load_models(named, device_named(job.device))
    check_templates(job.templates, models)
    settings = {"images": job.images, "max_side": job.max_side, **given, "method": method, "options": chosen}
    return Asked(dataset, models, models.method(method, chosen), settings)


def check_templates(templates: Sequence[str] | None, *loaded: LoadedModels) -> None:
    """Raises UsageError for sentences that none of the models reads."""
    if templates and not any(models.reads_text for models in loaded):
        raise UsageError("--prompt is for models that read text, and none here does: leave it out")
