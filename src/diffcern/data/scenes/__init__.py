"""The embedded scenes: textured shapes on lit ground that recedes, rendered on demand with their masks and depths.

The class of a scene is the shape of its main thing, the largest in the picture. The splits are for what those of
the digits are for: weights are trained on `train`, settings chosen on `validation`, figures reported on `test`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from diffcern.data.base import Accepts, Sample
from diffcern.data.scenes.geometry import Scene
from diffcern.data.scenes.layout import SPLITS, layout, name, targets
from diffcern.data.scenes.render import MASK_NAMES, render
from diffcern.data.scenes.renditions import RENDITIONS, draw
from diffcern.data.scenes.shapes import CLASSES
from diffcern.errors import UsageError, unknown

__all__ = ["NAMES", "SIDE", "Scene", "Scenes", "scenes", "side_within"]
SIDE = 64  # of the pictures, in pixels
NAMES = {"scenes": "test", **{f"scenes/{split}": split for split in SPLITS}}  # what follows "embedded:" -> split


@dataclass(frozen=True)
class Scenes:
    """One split of the scenes: `[3, side, side]` images with masks (indices into `mask_names`) and depths.

    Sample k is the same in any order and in any batch. Nothing is kept: a sample is rendered when it is asked for.
    """

    split: str
    side: int = SIDE
    name: str = "scenes"
    class_names: tuple[str, ...] = CLASSES
    class_ids: tuple[str, ...] = ()
    accepts: Accepts = None
    mask_names: tuple[str, ...] = MASK_NAMES
    renditions: tuple[str, ...] = tuple(RENDITIONS)

    @cached_property
    def ids(self) -> Sequence[str]:
        return [name(self.split, index) for index in range(len(self))]

    @property
    def targets(self) -> Sequence[int]:
        return targets(self.split)

    def __len__(self) -> int:
        return SPLITS[self.split]

    def scene(self, index: int) -> Scene:
        """What stands in scene `index`, from which everything else follows."""
        return layout(self.split, range(len(self))[index])

    def __getitem__(self, index: int) -> Sample:
        scene = self.scene(index)
        image, mask, depth = render(scene, self.side)
        return Sample(scene.id, image, CLASSES.index(scene.things[0].shape), mask, depth)

    def rendition(self, index: int, name: str, severity: int) -> Sample:
        """The same scene drawn in the way `name` of `renditions`, at severity 1 to 5; mask and depth are unchanged.

        Raises `UsageError` for another name or severity.
        """
        if name not in RENDITIONS:
            raise unknown("rendition of scenes", name, RENDITIONS)
        if severity not in range(1, 6):
            raise UsageError(f"severity of {name} is 1, 2, 3, 4 or 5, not {severity}.")
        scene = self.scene(index)
        image, mask, depth = draw(scene, self.side, name, severity)
        return Sample(scene.id, image, CLASSES.index(scene.things[0].shape), mask, depth)

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Images `[B, 3, side, side]`, masks and depths `[B, side, side]`, as of the single samples."""
        images, masks, depths = zip(*(render(self.scene(index), self.side) for index in indices), strict=True)
        return torch.stack(images), torch.stack(masks), torch.stack(depths)


def scenes(split: str, side: int = SIDE) -> Scenes:
    """The split `train` (20,000), `validation` (500) or `test` (1,000), in pictures of `side` x `side` pixels.

    Raises `UsageError` for another split, and for fewer than 16 pixels a side, which show no shapes.
    """
    if split not in SPLITS:
        raise unknown("split of scenes", split, SPLITS)
    if side < 16:
        raise UsageError(f"scenes need at least 16 pixels a side, not {side}.")
    return Scenes(split, side)


def side_within(max_side: int | None) -> int:
    """The side of the pictures where none may be longer than `max_side`."""
    return SIDE if max_side is None else min(SIDE, max_side)
