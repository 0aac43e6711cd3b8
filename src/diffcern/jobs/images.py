"""What jobs over images have in common: the images, the models, and a method over these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass as plain
from dataclasses import field
from typing import TYPE_CHECKING, Any

from pydantic.dataclasses import dataclass

from diffcern.errors import UsageError
from diffcern.fields import ClassMap, Images, Labels, MaxSide, Options, Preset, Templates
from diffcern.jobs.base import CHECKED
from diffcern.jobs.models import OnModels
from diffcern.jobs.rows import RowsJob

if TYPE_CHECKING:
    from diffcern.data import Dataset
    from diffcern.methods import Method
    from diffcern.run.models import LoadedModels


@plain(frozen=True)
class Asked:
    """settings: how images, models and method were chosen, by which rows know their own."""

    dataset: Dataset
    models: LoadedModels
    method: Method
    settings: dict[str, Any]


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class OverImages(OnModels, RowsJob):
    images: Images
    labels: Labels = None
    templates: Templates = None
    class_map: ClassMap = None
    preset: Preset = "small"
    options: Options = field(default_factory=dict)
    max_side: MaxSide = 4096

    def asked(self, method: str, options: Mapping[str, Any], **names: Any) -> Asked:
        """Loads what the job names. names: its models, and what else of `spec.Models` it says.

        options: of the method, over those of the preset. Raises as `Job.carry_out`.
        """
        from diffcern.data import load_dataset
        from diffcern.devices import device_named
        from diffcern.methods.presets import preset_options
        from diffcern.run.models import load_models
        from diffcern.run.spec import parse_models

        given = self.named(**names, labels=self.labels, templates=self.templates, class_map=self.class_map)
        named = parse_models(given)
        chosen = {**preset_options(method, self.preset, named.task), **options}
        dataset = load_dataset(self.images, max_side=self.max_side)
        models = load_models(named, device_named(self.device))
        check_templates(self.templates, models)
        settings = {"images": self.images, "max_side": self.max_side, **given, "method": method, "options": chosen}
        return Asked(dataset, models, models.method(method, chosen), settings)


def check_templates(templates: Sequence[str] | None, *loaded: LoadedModels) -> None:
    """Raises UsageError for sentences that none of the models reads."""
    if templates and not any(models.reads_text for models in loaded):
        raise UsageError("--prompt is for models that read text, and none here does: leave it out")
