"""What can be tried on the page: images with a predictor and a prior that know them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from torch import Tensor

from diffcern.data import Dataset, load_dataset
from diffcern.data.corruptions import COMMON
from diffcern.data.pairs import Pairs
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
CAPTIONS = ("a red pyramid right of a purple cylinder", "a purple pyramid right of a red cylinder")  # until others come


@dataclass(frozen=True)
class Picture:
    """image: as it was given, `[3, H, W]`; truth: what it shows, "" where nobody knows; labels: what is to be told
    apart in it, where it has its own; name: of the file, where it came as one."""

    image: Tensor
    id: str
    truth: str = ""
    labels: tuple[str, ...] = ()
    name: str = ""


@dataclass
class World:
    """Names as on the command line; loaded when they are first asked for, once for all visitors, and again for labels
    that a visitor writes.

    labels: what models that read text are told, which visitors may change; none: the models' own classes."""

    title: str
    dataset: str
    predictor: str
    prior: str
    task: str = "classification"
    device: str = "auto"
    labels: tuple[str, ...] = ()
    templates: tuple[str, ...] | None = None
    _lock: threading.RLock = field(default_factory=threading.RLock, init=False, repr=False)
    _methods: dict[str, Any] = field(default_factory=dict, init=False, repr=False)
    _other: World | None = field(default=None, init=False, repr=False)

    @cached_property
    def models(self) -> LoadedModels:
        return load_models(self.named, device_named(self.device))

    @property
    def named(self) -> Models:
        told = {"labels": list(self.labels), "templates": list(self.templates or ()) or None} if self.labels else {}
        return parse_models({"predictor": self.predictor, "prior": self.prior, "task": self.task, **told})

    @cached_property
    def images(self) -> Dataset:
        return load_dataset(self.dataset, max_side=SIDE)

    @property
    def dense(self) -> bool:
        return KINDS[self.task].dense

    def load(self) -> None:
        """Whatever a visitor would wait for. Raises as `load_models` and `load_dataset`."""
        with self._lock:
            self.count  # noqa: B018
            self.models  # noqa: B018

    def told(self, labels: Sequence[str]) -> World:
        """The same with other labels. Of these worlds the last one is kept: models take memory."""
        if tuple(labels) == self.labels:
            return self
        with self._lock:
            if self._other is None or self._other.labels != tuple(labels):
                self._other = replace(self, labels=tuple(labels))
            return self._other

    @property
    def count(self) -> int:
        """Pictures to choose from."""
        return len(self.images)

    def picture(self, row: int) -> Picture:
        """One of them. Raises UnreadableImage."""
        sample = self.images[row]
        known = sample.target >= 0 and not self.dense and self.images.accepts is None
        return Picture(sample.image, sample.id, self.images.class_names[sample.target] if known else "")

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

    def right(self, truth: str) -> int | None:
        """The predictor's class that is right for a picture that shows `truth`; None where nobody knows, or several may
        be meant."""
        found = Spellings(self.models.task.class_names).find(truth) if truth else ()
        return next(iter(found)) if len(found) == 1 else None

    def shifted(self, image: Tensor, name: str, severity: int, id: str) -> Tensor:
        """`[3, H, W]`; the image itself for "clean"."""
        return image if name == "clean" else shift(image, name, severity, 0, id, whole=True)


class CaptionedScenes(World):
    """Scenes and their counterparts, each with the two captions of which one is its own."""

    @cached_property
    def examples(self) -> Pairs:
        from diffcern.data.scenes.matching import pairs

        return pairs("test")

    @property
    def count(self) -> int:
        return 2 * len(self.examples)

    def picture(self, row: int) -> Picture:
        example = self.examples.entries[row // 2]
        images, place = example.images[row % 2]
        sample = images[place]
        return Picture(sample.image, sample.id, example.captions[row % 2], example.captions)


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
        World(
            "Scenes, as depths",
            "embedded:scenes/test",
            "embedded:scenes-depth",
            "embedded:scenes-depth",
            "depth",
            device,
        ),
        CaptionedScenes(
            "Scenes, and what is said of them",
            "embedded:scenes/test",
            "embedded:scenes-clip",
            "embedded:scenes-text",
            device=device,
            labels=CAPTIONS,
            templates=("{}",),
        ),
    ]


def of_models(
    predictor: str | None,
    prior: str | None,
    images: str | None,
    task: str,
    device: str,
    labels: Sequence[str] = (),
) -> list[World]:
    """The embedded worlds, behind that of the models that were named; labels: for those that read text. Raises
    UsageError for one without the other."""
    if not (predictor or prior or images or labels):
        return embedded(device)
    if not (predictor and prior and images):
        raise UsageError("models of your own take all three: --predictor P --prior R and --images FOLDER")
    return [World("Yours", images, predictor, prior, task, device, tuple(labels)), *embedded(device)]
