"""SDA for classification: images of every class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffcern.data import Dataset, ImageFolder
from diffcern.data.folder import some
from diffcern.errors import UsageError
from diffcern.priors import Prior
from diffcern.train.align import Telling
from diffcern.types import Condition


@dataclass(frozen=True)
class Classes:
    """A `Material`: `per_class` images of each class, in a folder named after it. prompts: the sentences of each, where
    the generator reads text."""

    names: tuple[str, ...]
    per_class: int
    prompts: tuple[tuple[str, ...], ...] = ()

    @property
    def stated(self) -> Mapping[str, Any]:
        return {"per_class": self.per_class, "prompts": self.prompts}

    @property
    def digest(self) -> Mapping[str, str]:
        return {}

    @property
    def ids(self) -> Sequence[str]:
        return [f"{name}/{index}" for name in self.names for index in range(self.per_class)]

    def telling(self, generator: Prior) -> Telling:
        indices, hypotheses = class_indices(generator, self.names), generator.hypotheses()

        def told(batch: Sequence[str]) -> Condition:
            return hypotheses[[indices[id.rpartition("/")[0]] for id in batch]]

        return told

    def write(self, folder: Path) -> None:
        """The names of folders say all."""

    def dataset(self, images: Path) -> Dataset:
        return ImageFolder(images, labelled=True, class_names=self.names)


def class_indices(generator: Prior, classes: Sequence[str]) -> dict[str, int]:
    """The generator's index of each class. Raises UsageError for one that it, or a file system, does not know."""
    known = list(generator.class_names)
    missing = [name for name in classes if name not in known]
    if missing:
        raise UsageError(
            f"the generator does not know {len(missing)} of the predictor's {len(classes)} classes "
            f"({some(missing)}); it knows {some(known) or 'none'}: give --labels, --class-map or another --generator"
        )
    unfit = [name for name in classes if not name or "/" in name or name.startswith(".")]
    if unfit:
        raise UsageError(f"classes become folders, and no folder can be called {some(unfit)}: leave it out of --labels")
    return {name: known.index(name) for name in classes}
