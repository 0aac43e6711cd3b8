"""What can be tried on the page: images with a predictor and a prior that know them."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from diffcern.data import Dataset, load_dataset
from diffcern.data.corruptions import COMMON
from diffcern.data.shifts import SHIFTS, shift
from diffcern.devices import device_named
from diffcern.errors import UsageError
from diffcern.kinds import KINDS
from diffcern.methods.presets import preset_options
from diffcern.run.models import LoadedModels, load_models
from diffcern.run.spec import Models, parse_models
from diffcern.spellings import Spellings

METHODS = {  # of the page, in its order, and what it calls them
    "diffusion-tta": "Diffusion-TTA",
    "diffusion-classifier": "Diffusion Classifier",
    "canonical": "Canonical view",
    "dda": "DDA",
    "memo": "MEMO",
}
SIDE = 1024  # pixels to which images are shrunk
OF_MAPS = ("diffusion-tta", "canonical", "dda")


@dataclass
class World:
    """Names as on the command line; loaded when they are first asked for, once for all visitors."""

    title: str
    dataset: str
    predictor: str
    prior: str
    task: str = "classification"
    device: str = "auto"
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _methods: dict[str, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def models(self) -> LoadedModels:
        return load_models(self.named, device_named(self.device))

    @property
    def named(self) -> Models:
        return parse_models({"predictor": self.predictor, "prior": self.prior, "task": self.task})

    @cached_property
    def images(self) -> Dataset:
        return load_dataset(self.dataset, max_side=SIDE)

    @property
    def dense(self) -> bool:
        return KINDS[self.task].dense

    def load(self) -> None:
        """Whatever a visitor would wait for. Raises as `load_models` and `load_dataset`."""
        with self._lock:
            self.images  # noqa: B018
            self.models  # noqa: B018

    @property
    def shifts(self) -> list[str]:
        return list(dict.fromkeys(["clean", "contrast", *SHIFTS, *COMMON]))

    @property
    def methods(self) -> dict[str, str]:
        """Those that this world can be asked by: name -> what the page calls it."""
        return {name: title for name, title in METHODS.items() if not self.dense or name in OF_MAPS}

    def method(self, name: str) -> Any:
        """Built once, with the preset `small`."""
        with self._lock:
            if name not in self._methods:
                self._methods[name] = self.models.method(name, preset_options(name, "small", self.task))
            return self._methods[name]

    def right(self, target: int) -> frozenset[int]:
        """The predictor's classes that are right where the images' own is the target; empty where nobody knows, or
        several of the predictor's may be meant."""
        if target < 0 or self.dense or self.images.accepts is not None:
            return frozenset()
        found = Spellings(self.models.task.class_names).find(self.images.class_names[target])
        return frozenset(found) if len(found) == 1 else frozenset()

    def shifted(self, image: Tensor, name: str, severity: int, id: str) -> Tensor:
        """`[3, H, W]`; the image itself for "clean"."""
        return image if name == "clean" else shift(image, name, severity, 0, id, whole=True)


def embedded(device: str = "auto") -> list[World]:
    """Those that ship."""
    return [
        World("Digits", "embedded:digits", "embedded:digits", "embedded:digits", device=device),
        World("Two digits", "embedded:digit-pairs", "embedded:digit-pairs", "embedded:digit-pairs", device=device),
        World(
            "Scenes, as masks",
            "embedded:scenes/test",
            "embedded:scenes-segmentation",
            "embedded:scenes-segmentation",
            "segmentation",
            device,
        ),
    ]


def of_models(predictor: str | None, prior: str | None, images: str | None, task: str, device: str) -> list[World]:
    """The embedded worlds, behind that of the models that were named. Raises UsageError for one without the other."""
    if not (predictor or prior or images):
        return embedded(device)
    if not (predictor and prior and images):
        raise UsageError("models of your own take all three: --predictor P --prior R and --images FOLDER")
    return [World("Yours", images, predictor, prior, task, device), *embedded(device)]
