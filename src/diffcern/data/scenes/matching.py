"""Scenes and their counterparts as image-text pairs, in the manner of Winoground."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from diffcern.data.base import Accepts, Sample
from diffcern.data.pairs import Paired, Pairs
from diffcern.data.scenes import SIDE, scenes
from diffcern.data.scenes.geometry import Scene
from diffcern.data.scenes.language import SWAPS, Counterpart, counterpart
from diffcern.data.scenes.render import MASK_NAMES, render
from diffcern.data.scenes.shapes import CLASSES
from diffcern.errors import UsageError

COUNTS = {"train": 400, "validation": 200, "test": 400}  # unless told otherwise; the splits make more


@dataclass(frozen=True)
class Counterparts:
    """The data set of scenes that are in no split: each differs from one of a split by one swap."""

    scenes: Sequence[Scene]
    side: int = SIDE
    name: str = "scenes"
    class_names: tuple[str, ...] = CLASSES
    class_ids: tuple[str, ...] = ()
    accepts: Accepts = None
    mask_names: tuple[str, ...] = MASK_NAMES

    @cached_property
    def ids(self) -> Sequence[str]:
        return [scene.id for scene in self.scenes]

    @cached_property
    def targets(self) -> Sequence[int]:
        return [CLASSES.index(scene.things[0].shape) for scene in self.scenes]

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> Sample:
        scene = self.scenes[index]
        image, mask, depth = render(scene, self.side)
        return Sample(scene.id, image, CLASSES.index(scene.things[0].shape), mask, depth)


def pairs(split: str, count: int | None = None, side: int = SIDE) -> Pairs:
    """The first `count` examples of a split: every other swaps colours ("attribute"), or places ("relation").

    Two images and two captions each; the kind is the tag. One scene makes at most one example. Raises `UsageError`
    for an unknown split, and for fewer than 1 and more than the split makes.
    """
    originals = scenes(split, side)
    count = COUNTS[split] if count is None else count
    if count < 1:
        raise UsageError(f"ask for at least 1 of the pairs of scenes, not {count}.")
    rows: list[int] = []
    found: list[Counterpart] = []
    for row in range(len(originals)):
        other = counterpart(originals.scene(row), SWAPS[len(found) % len(SWAPS)])
        if other is not None:
            rows.append(row)
            found.append(other)
        if len(found) == count:
            break
    if len(found) < count:
        raise UsageError(f"the {split} split of scenes makes {len(found)} pairs, not {count}.")
    others = Counterparts([other.scene for other in found], side)
    entries = []
    for k, (row, other) in enumerate(zip(rows, found, strict=True)):
        tags = {"tag": SWAPS[k % len(SWAPS)]}
        entries.append(Paired(other.scene.id, ((originals, row), (others, k)), other.captions, tags))
    return Pairs(originals.name, entries)
