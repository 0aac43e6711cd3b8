"""Transformations of an image as values: light first, y = gain x^gamma + offset, then its place, y(p) = x(A^-1 p).

Each knows how to be applied, how a map that was answered on its result is brought back, and how much it stretches the
space of images, log |det J|, without which the evidence of differently transformed images does not compare
(`evidence.py`). Light has it in closed form; turns, mirrors and shifts move numbers and stretch nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor
from torch.nn import functional as F

from diffcern.errors import UsageError

Three = tuple[float, float, float]
ROOM = 0.02  # how far a pixel may leave [0, 1] before it would be clipped: what is clipped is lost, and no view


@dataclass(frozen=True)
class Transformation:
    """gain, offset: of each channel, of images in [0, 1]; gamma: of them all, before. turn: degrees, counter-clockwise;
    scale: above 1 enlarges; shift: to the right and down, in sides of the image; flip: left and right change places.

    Raises UsageError for gains, gammas and scales that are not above 0.
    """

    gain: Three = (1.0, 1.0, 1.0)
    offset: Three = (0.0, 0.0, 0.0)
    gamma: float = 1.0
    turn: float = 0.0
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    flip: bool = False

    def __post_init__(self) -> None:
        if not all(value > 0 for value in (*self.gain, self.gamma, self.scale)):  # false for NaN
            raise UsageError(f"gain, gamma and scale are above 0, not {self.gain}, {self.gamma}, {self.scale}")

    @property
    def moves(self) -> bool:
        """Whether it changes where things are."""
        return (self.turn, self.scale, self.shift, self.flip) != (0.0, 1.0, (0.0, 0.0), False)

    def apply(
        self, images: Float[Tensor, "batch 3 rows columns"], interpolation: str = "bilinear"
    ) -> Float[Tensor, "batch 3 rows columns"]:
        """The transformed images; nothing is clipped, see `fits`.

        interpolation: "nearest" leaves noise as it is, where "bilinear" smooths it: whoever compares how likely
        differently turned images are takes that one, or every turn looks like an improvement.
        """
        gain, offset = (images.new_tensor(value).view(1, 3, 1, 1) for value in (self.gain, self.offset))
        lit = images if self.gamma == 1 else images.clamp(min=0) ** self.gamma
        return self._placed(gain * lit + offset, self._matrix(images.shape[-2:]), interpolation)

    def back(self, maps: Float[Tensor, "batch channels rows columns"]) -> Float[Tensor, "batch channels rows columns"]:
        """A map of the result, where the image has it; what the result does not show is as at its border."""
        return self._placed(maps, torch.linalg.inv(self._matrix(maps.shape[-2:])))

    def fits(self, images: Float[Tensor, "batch 3 rows columns"]) -> list[bool]:
        """Whether the results stay in [0, 1], but for a hair."""
        lit = replace(self, turn=0.0, scale=1.0, shift=(0.0, 0.0), flip=False).apply(images).flatten(1)
        own = images.flatten(1)
        low, high = own.amin(1).clamp(max=0) - ROOM, own.amax(1).clamp(min=1) + ROOM
        return ((lit.amin(1) >= low) & (lit.amax(1) <= high)).tolist()

    def log_det(self, images: Float[Tensor, "batch 3 rows columns"]) -> Float64[Tensor, " batch"]:
        """log |det J| on the numbers of the images: sum over them of log gain + log gamma + (gamma - 1) log x."""
        count = images[0, 0].numel()
        total = images.new_full((len(images),), count * sum(map(math.log, self.gain)), dtype=torch.float64)
        if self.gamma != 1:
            stretched = math.log(self.gamma) + (self.gamma - 1) * images.double().clamp(min=1e-3).log()
            total += stretched.flatten(1).sum(1)
        return total.cpu()

    def _matrix(self, shape: torch.Size) -> Float32[Tensor, "3 3"]:
        """A: where each point of the image goes, in coordinates of -1 to 1 to the right and down."""
        rows, columns = shape
        angle, side = math.radians(self.turn), torch.tensor([columns / 2, rows / 2])
        cos, sin = math.cos(angle), math.sin(angle)
        mirror = torch.tensor([[-1.0 if self.flip else 1.0, 0.0], [0.0, 1.0]])
        linear = self.scale * torch.tensor([[cos, sin], [-sin, cos]]) @ mirror
        matrix = torch.eye(3)
        matrix[:2, :2] = linear * side[None] / side[:, None]
        matrix[:2, 2] = 2 * torch.tensor(self.shift)
        return matrix

    def _placed(
        self,
        images: Float[Tensor, "batch channels rows columns"],
        matrix: Float32[Tensor, "3 3"],
        interpolation: str = "bilinear",
    ) -> Float[Tensor, "batch channels rows columns"]:
        if not self.moves:
            return images
        inverse = torch.linalg.inv(matrix)[:2].to(images).expand(len(images), 2, 3)
        grid = F.affine_grid(inverse, list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, mode=interpolation, padding_mode="border", align_corners=False)


IDENTITY = Transformation()
