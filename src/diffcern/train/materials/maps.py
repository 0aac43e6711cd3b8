"""SDA for segmentation and depth: images of known maps.

The maps are copied first, and from then on the data set that they are from is not needed. Images are made in the
prior's size, and the predictor sees them in that of the data set's images: so does `methods.purification.Purified` with
its targets.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import Tensor

from diffcern.alignment import FILE, read_alignment
from diffcern.data import Dataset, Sample, decode, subset
from diffcern.data.base import VOID, Accepts
from diffcern.data.folder import some
from diffcern.data.maps import (
    DEEPEST,
    check_not_binary,
)
from diffcern.errors import DiffcernError, UsageError
from diffcern.files import write_whole
from diffcern.kinds import KINDS
from diffcern.predictors import Predictor
from diffcern.priors import Prior
from diffcern.tasks import MAP_TASKS, Depth, Segmentation, task_of
from diffcern.tasks.base import resized
from diffcern.tasks.depth import filled
from diffcern.tasks.segmentation import check_size
from diffcern.train.align import Telling
from diffcern.train.images import truth_of
from diffcern.train.stages import file_of
from diffcern.types import Condition


@dataclass(frozen=True)
class ChosenMaps:
    """What images are to show. task: "segmentation" or "depth". files: by id a PNG, as in `data/maps.py`: of the
    predictor's classes, or of millimetres. size: (height, width) of the images that the maps belong to."""

    task: str
    files: Mapping[str, bytes]
    size: tuple[int, int]

    def truth(self, id: str) -> Tensor:
        """The mask `[h, w]` int64, or the depth in metres, float32."""
        return MAP_TASKS[self.task].decode(self.files[id], id)

    def settings(self, source: Mapping[str, Any]) -> dict[str, Any]:
        """What an `Alignment` keeps of them; source: where they are from, in plain values."""
        content = hashlib.blake2b(b"".join(self.files.values()), digest_size=8).hexdigest()
        own = {"task": self.task, "count": len(self.files), "size": list(self.size), "digest": content}
        return {**source, **own}

    def write(self, folder: Path) -> None:
        """Those that the folder does not hold yet."""
        place = folder / KINDS[self.task].folder
        place.mkdir(exist_ok=True)
        for id, content in self.files.items():
            if not file_of(place, id).exists():
                write_whole(file_of(place, id), content)


def kept_maps(folder: Path, task: str, source: Mapping[str, Any], count: int, seed: int) -> ChosenMaps | None:
    """The maps that a folder of `align` holds; None unless it holds all `count` of them, chosen so."""
    if not (folder / FILE).is_file():
        return None
    before = read_alignment(folder)
    wanted = {**json.loads(json.dumps(source)), "task": task, "count": count}
    paths = {id: file_of(folder / KINDS[task].folder, id) for id in _ids(count)}
    if before.seed != seed or any(before.maps.get(key) != value for key, value in wanted.items()):
        return None
    if not all(path.is_file() for path in paths.values()):
        return None
    height, width = before.maps["size"]
    return ChosenMaps(task, {id: path.read_bytes() for id, path in paths.items()}, (height, width))


def choose_maps(
    dataset: Dataset, task: str, names: Sequence[str], classes: Sequence[str], count: int, seed: int
) -> ChosenMaps:
    """The maps of `count` samples of a data set, a seeded choice; of all in turn where these are fewer.

    names: what the predictor calls the classes of the data set's masks, in their order; classes: all of the
    predictor's. Raises UsageError for data that have no maps or do not name their classes, and for classes that the
    predictor does not know; DiffcernError for maps that say nothing, and for sizes that differ.
    """
    kind = KINDS[task]
    chosen = subset(dataset, count, seed)
    if getattr(chosen[0], kind.truth) is None:
        raise UsageError(
            f"{dataset.name} has no {kind.truth}s: name data that have them, such as embedded:scenes/train or a "
            f"parquet file with a column {' or '.join(kind.columns)}"
        )
    indices = _indices(dataset.name, names, classes) if kind.classes else None
    contents, shapes, seen = [], set(), set[int]()
    for row in track(range(len(chosen)), "reading maps", transient=True):
        sample = chosen[row]
        truth = truth_of(sample, kind.truth, len(names))
        check_size(sample.image, truth, sample.id)
        seen |= set(truth.unique().tolist()) if kind.classes else set()
        shapes.add((*sample.image.shape[-2:], *truth.shape))
        if len(shapes) > 1:
            raise DiffcernError(f"{dataset.name} has images or {kind.truth}s of different sizes: resize them to one")
        if kind.classes and bool((truth == VOID).all()):
            raise DiffcernError(f"the mask of {sample.id} is void everywhere: leave this image out")
        contents.append(MAP_TASKS[task].encode(_within(truth) if indices is None else indices[truth]))
    if kind.classes:
        check_not_binary(dataset.name, seen)
    height, width = next(iter(shapes))[:2]
    return ChosenMaps(task, {id: contents[k % len(contents)] for k, id in enumerate(_ids(count))}, (height, width))


@dataclass(frozen=True)
class MapMaterial:
    """A `Material`: an image of each of the maps, which are those of what the predictor answers. source: where the maps
    are from, in plain values."""

    maps: ChosenMaps
    predictor: Predictor
    source: Mapping[str, Any]

    @property
    def stated(self) -> Mapping[str, Any]:
        return {"maps": self.maps.settings(self.source)}

    @property
    def digest(self) -> Mapping[str, str]:
        return {}

    @property
    def ids(self) -> Sequence[str]:
        return list(self.maps.files)

    def telling(self, generator: Prior) -> Telling:
        condition = telling(self.predictor, generator)
        return lambda batch: condition([self.maps.truth(id) for id in batch])

    def write(self, folder: Path) -> None:
        self.maps.write(folder)

    def dataset(self, images: Path) -> Dataset:
        return DrawnMaps(images, self.maps)


def telling(predictor: Predictor, generator: Prior) -> Callable[[Sequence[Tensor]], Condition]:
    """A function from true maps `[h, w]` of the predictor's kind to what the generator is told of them.

    Raises UsageError for a predictor of relative depth, and for a generator whose maps do not show what it answers.
    """
    task = task_of(predictor, generator)
    if isinstance(task, Depth) and not task.metric:
        raise UsageError("the predictor gives relative inverse depth, and is fine-tuned on metres: give one that does")
    try:
        task.check(generator)
    except DiffcernError as error:
        raise UsageError(f"the generator cannot draw what the predictor answers: {error}") from error
    assert isinstance(task, Segmentation | Depth)  # classes of images have no maps
    whole = filled if isinstance(task, Depth) else torch.Tensor.long
    return lambda truths: task.condition_of_truth(torch.stack([whole(truth) for truth in truths]).to(generator.device))


@dataclass(frozen=True)
class DrawnMaps:
    """A `Dataset`: the images of one folder, in the size in which the predictor is shown targets, and their maps."""

    folder: Path
    maps: ChosenMaps
    class_names: tuple[str, ...] = ()
    class_ids: tuple[str, ...] = ()
    accepts: Accepts = None

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def ids(self) -> Sequence[str]:
        return list(self.maps.files)

    @property
    def targets(self) -> Sequence[int]:
        return [-1] * len(self)

    def __len__(self) -> int:
        return len(self.maps.files)

    def __getitem__(self, index: int) -> Sample:
        id = self.ids[index]
        image = resized(decode(file_of(self.folder, id), id)[None], self.maps.size)[0]
        truth = self.maps.truth(id)
        return Sample(id, image, -1, **{KINDS[self.maps.task].truth: truth})


def _within(depth: Tensor) -> Tensor:
    """The depth without what 16 bits of millimetres cannot hold, which becomes unknown."""
    return depth.masked_fill(depth > DEEPEST, 0.0)


def _ids(count: int) -> list[str]:
    return [f"{number:06d}" for number in range(count)]


def _indices(where: str, names: Sequence[str], classes: Sequence[str]) -> Tensor:
    """`[256]`: the predictor's index of each index of the masks, void for what is void. Raises as `choose_maps`."""
    if not names:
        raise UsageError(f"{where} does not name the classes of its masks: give --class-names")
    missing = [name for name in names if name not in classes]
    if missing:
        raise UsageError(
            f"the masks of {where} show {some(missing)}, which the predictor does not know (it knows {some(classes)}): "
            "give --class-map, or name all of them in --labels"
        )
    if len(classes) > VOID:
        raise UsageError(f"the predictor knows {len(classes)} classes of pixels: at most {VOID} fit into a mask")
    indices = torch.full((VOID + 1,), VOID)
    indices[: len(names)] = torch.tensor([list(classes).index(name) for name in names])
    return indices
