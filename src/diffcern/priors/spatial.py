"""Maps as conditions: what they show, and how they are concatenated to the noisy latent's channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from diffcern.configs import FORBID, Names
from diffcern.kinds import KINDS
from diffcern.types import Condition

Metres = Annotated[float, Field(gt=0)]


@dataclass(frozen=True)
class Maps:
    """What a prior's maps show, channel by channel.

    kind: "segmentation", the share of each class of `names` in a pixel, in [0, 1]; or "depth", one channel: the
    logarithm of the depth, -1 at `near` and 1 at `far` (metres), or where these are None the inverse depth from its
    smallest to its largest in the image, -1 to 1 (MiDaS's convention, in which scale and shift play no part).
    """

    __pydantic_config__ = FORBID

    kind: Literal["segmentation", "depth"]
    names: Names = ()
    near: Metres | None = None
    far: Metres | None = None

    def __post_init__(self) -> None:
        """ValueError, which a validator of `prior.json` reports, for what contradicts itself."""
        if KINDS[self.kind].classes != bool(self.names):
            raise ValueError("maps with names for segmentation, and without for depth")
        if (self.near is None) != (self.far is None) or (self.near and self.far and self.near >= self.far):
            raise ValueError("maps with near below far, or neither")

    @property
    def channels(self) -> int:
        return len(self.names) if KINDS[self.kind].classes else 1


def with_maps(x: Tensor, condition: Condition, channels: int) -> Tensor:
    """x `[B, C, h, w]` with the condition's maps as `channels` more channels; zeros where it has none."""
    if not channels:
        return x
    maps = condition.spatial
    if maps is None:
        maps = x.new_zeros(len(x), channels, *x.shape[2:])
    return torch.cat([x, maps.to(x.dtype)], 1)
