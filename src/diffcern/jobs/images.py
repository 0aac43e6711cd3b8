"""What jobs over images have in common: the images, the models, and a method over these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass as plain
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic.dataclasses import dataclass

from diffcern.errors import UsageError
from diffcern.fields import ClassMap, Images, Labels, MaxSide, Options, Preset, Templates, help_of
from diffcern.jobs.base import CHECKED
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

    def about(self, stream: tuple[str, int]) -> dict[str, Any]:
        """What a calibration of these answers holds for."""
        from diffcern.calibration import described

        said, classes = self.settings, self.models.task.class_names
        how: dict[str, Any] = {"labels": said["labels"], "templates": said["templates"], "loaded": self.method.loaded}
        return described(said["method"], said["options"], classes, self.models.fingerprints(), stream=stream, **how)


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class OverImages(RowsJob):
    images: Images
    labels: Labels = None
    templates: Templates = None
    class_map: ClassMap = None
    preset: Preset = "small"
    options: Options = field(default_factory=dict)
    max_side: MaxSide = 4096
    calibration: Annotated[str | None, help_of("the folder of a calibration.json (default: the prior's own)")] = None

    def asked(
        self,
        method: str,
        options: Mapping[str, Any],
        *,
        calibrated: bool = True,
        stream: tuple[str, int] = ("episodic", 1),
        **names: Any,
    ) -> Asked:
        """Loads what the job names. names: its models, and what else of `spec.Models` it says. calibrated: answers are
        divided by the temperature that was fitted for them, where one was. stream: protocol and images at a time.

        options: of the method, over those of the preset. Raises as `Job.carry_out`.
        """
        from diffcern.data import load_dataset
        from diffcern.devices import device_named
        from diffcern.methods.presets import over_preset
        from diffcern.run.models import load_models
        from diffcern.run.spec import parse_models

        given = self.named(**names, labels=self.labels, templates=self.templates, class_map=self.class_map)
        named = parse_models(given)
        chosen = over_preset(method, self.preset, options, named.task)
        dataset = load_dataset(self.images, max_side=self.max_side)
        models = load_models(named, device_named(self.device))
        check_templates(self.templates, models)
        settings = {"images": self.images, "max_side": self.max_side, **given, "method": method, "options": chosen}
        asked = Asked(dataset, models, models.method(method, chosen), settings)
        return self._calibrated(asked, names.get("prior"), stream) if calibrated else asked

    def _calibrated(self, asked: Asked, prior: str | None, stream: tuple[str, int]) -> Asked:
        """Raises UsageError where the job names a calibration that is not for its answers."""
        from diffcern.calibration import read
        from diffcern.methods.calibrated import Calibrated

        folder = Path(self.calibration).expanduser() if self.calibration else calibration_folder(prior)
        known = read(folder) if folder else ()
        about = asked.about(stream) if known else None
        for each in known:
            if each.about == about:
                settings = {**asked.settings, "calibration": [each.temperature, *each.bias]}
                return Asked(asked.dataset, asked.models, Calibrated(asked.method, each), settings)
        if self.calibration:
            raise UsageError(
                f"{folder} holds no calibration for {asked.settings['method']} with these options, classes and "
                "weights: run `diffcern calibrate images` with them"
            )
        return asked


def calibration_folder(prior: str | None) -> Path | None:
    """Where the calibrations of a prior are kept: its own folder, where it is one."""
    from diffcern.assets import asset

    if prior is None:
        return None
    if prior.startswith("embedded:"):
        return asset(prior.partition(":")[2], "prior")
    folder = Path(prior).expanduser()
    return folder if folder.is_dir() else None


def check_templates(templates: Sequence[str] | None, *loaded: LoadedModels) -> None:
    """Raises UsageError for sentences that none of the models reads."""
    if templates and not any(models.reads_text for models in loaded):
        raise UsageError("--prompt is for models that read text, and none here does: leave it out")
