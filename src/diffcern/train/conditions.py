"""Maps of training images as a prior's condition: what they show, and the rows of a batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffcern.data import Dataset
from diffcern.errors import DiffcernError, UsageError
from diffcern.kinds import KINDS
from diffcern.priors.native import NativePrior
from diffcern.priors.spatial import Maps
from diffcern.tasks.depth import Depth, filled
from diffcern.tasks.segmentation import Segmentation
from diffcern.train.images import ImageTable
from diffcern.types import Condition


def maps_of(kind: str, dataset: Dataset, table: ImageTable) -> Maps | None:
    """What the maps show: the classes of the data's masks, or depth between the least and the greatest there is."""
    if not kind:
        return None
    if KINDS[kind].classes:
        names: tuple[str, ...] = getattr(dataset, "mask_names", ())
        if not names:
            raise UsageError(f"{dataset.name} does not name the classes of its masks: give --class-names")
        return Maps("segmentation", names)
    assert table.truth is not None  # it was asked for
    near, far = table.truth[table.truth > 0].aminmax()
    if near == far:
        raise DiffcernError(
            f"{dataset.name} has one depth everywhere: there is nothing to learn from it. Give maps that differ"
        )
    return Maps("depth", near=round(near.item(), 3), far=round(far.item(), 3))


def maps_told(prior: NativePrior, table: ImageTable) -> Callable[[Tensor], Tensor]:
    """A function from rows of the table to their maps `[B, C, h, w]`, on the prior's device."""
    assert prior.maps is not None  # this prior reads maps
    if KINDS[prior.maps.kind].classes:
        segmentation = Segmentation(prior.maps.names, prior)
        return lambda index: _spatial(segmentation.condition_of_truth(table.truths(index, prior.device)))
    depth = Depth(True, prior)
    whole = torch.stack([filled(row) for row in table.truths(torch.arange(len(table.images)), torch.device("cpu"))])
    return lambda index: _spatial(depth.condition_of_truth(whole[index].to(prior.device)))


def _spatial(condition: Condition) -> Tensor:
    assert condition.spatial is not None
    return condition.spatial
