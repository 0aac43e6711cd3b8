"""Transformations of an image as values: light, y = (gain (x - veil) + offset)^gamma, then blur that is undone, then
its place, y(p) = x(A^-1 p).

Each knows how to be applied, how a map that was answered on its result is brought back, and how much it stretches the
space of images, log |det J|, without which the evidence of differently transformed images does not compare
(`evidence.py`). Light and blur have it in closed form; turns, mirrors, shifts and scales are taken to move numbers and
to stretch nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor
from torch.nn import functional as F

from diffcern.errors import UsageError

Three = tuple[float, float, float]
LOUDEST = 8.0  # what undoing a blur multiplies the finest detail by, at most
ROOM = 0.02  # how far a pixel may leave [0, 1] before it would be clipped: what is clipped is lost, and no view


@dataclass(frozen=True)
class Transformation:
    """veil: a square grid of numbers for each channel, row by row, spread over the image and taken off it: what haze
    has added. gain, offset: of each channel, of images in [0, 1]; gamma: of them all, after. sharpen: the Gaussian blur
    that is undone, its standard deviation in shorter sides of the image; what the blur left less than 1 / LOUDEST of is
    made LOUDEST times louder, and no more. turn: degrees, counter-clockwise; scale: above 1 enlarges; shift: to the
    right and down, in sides of the image, in whole pixels; what leaves it comes in at the other side, or an empty image
    would be a view of any. flip: left and right change places.

    Raises UsageError for gains, gammas and scales that are not above 0, a sharpen below 0, and a veil of no square.
    """

    gain: Three = (1.0, 1.0, 1.0)
    offset: Three = (0.0, 0.0, 0.0)
    gamma: float = 1.0
    sharpen: float = 0.0
    turn: float = 0.0
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    flip: bool = False
    veil: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not all(value > 0 for value in (*self.gain, self.gamma, self.scale)):  # false for NaN
            raise UsageError(f"gain, gamma and scale are above 0, not {self.gain}, {self.gamma}, {self.scale}")
        if not self.sharpen >= 0:
            raise UsageError(f"sharpen is a blur's standard deviation, 0 or more, not {self.sharpen}")
        if 3 * math.isqrt(len(self.veil) // 3) ** 2 != len(self.veil) or not all(map(math.isfinite, self.veil)):
            raise UsageError(f"a veil is a square grid of numbers for each channel, not {len(self.veil)} of them")

    @property
    def moves(self) -> bool:
        """Whether it changes where things are."""
        return (self.turn, self.scale, self.shift, self.flip) != (0.0, 1.0, (0.0, 0.0), False)

    def apply(
        self, images: Float[Tensor, "batch 3 rows columns"], interpolation: str = "bilinear"
    ) -> Float[Tensor, "batch 3 rows columns"]:
        """The transformed images, whose borders go on beyond them;
        nothing is clipped, see `fits`.

        interpolation: "nearest" leaves noise as it is, where "bilinear" smooths it: whoever compares how likely
        differently turned images are takes that one, or every turn looks like an improvement.
        """
        lit = self._lit(images)
        lit = lit if self.gamma == 1 else lit.clamp(min=0) ** self.gamma
        placed = self._turned(self._sharpened(lit), self._matrix(images.shape[-2:]), interpolation)
        return self._rolled(placed, 1)

    def back(self, maps: Float[Tensor, "batch channels rows columns"]) -> Float[Tensor, "batch channels rows columns"]:
        """A map of the result, where the image has it; what the result does not show is as at its border."""
        return self._turned(self._rolled(maps, -1), torch.linalg.inv(self._matrix(maps.shape[-2:])))

    def back_boxes(self, boxes: Float[Tensor, "boxes 4"], shape: tuple[int, int]) -> Float[Tensor, "boxes 4"]:
        """Boxes (left, top, right, bottom, in pixels) of the result, on the image, whose `shape` is (rows, columns):
        upright ones around their corners, no further than its borders."""
        rows, columns = shape
        side = boxes.new_tensor([columns, rows])
        moved = boxes.new_tensor([round(self.shift[0] * columns), round(self.shift[1] * rows)])
        corners = torch.stack([boxes[:, [0, 1]], boxes[:, [2, 1]], boxes[:, [0, 3]], boxes[:, [2, 3]]], 1) - moved
        wrapped = torch.floor(corners.mean(1, keepdim=True) / side) * side  # what left at one side came in at the other
        inverse = torch.linalg.inv(self._matrix(torch.Size(shape))).to(boxes)
        points = 2 * (corners - wrapped) / side - 1
        found = ((points @ inverse[:2, :2].T + inverse[:2, 2] + 1) / 2 * side).clamp(torch.zeros_like(side), side)
        return torch.cat([found.amin(1), found.amax(1)], 1)

    def fits(self, images: Float[Tensor, "batch 3 rows columns"]) -> list[bool]:
        """Whether their light stays in [0, 1], but for a hair."""
        lit, own = self._lit(images).flatten(1), images.flatten(1)
        low, high = own.amin(1).clamp(max=0) - ROOM, own.amax(1).clamp(min=1) + ROOM
        return ((lit.amin(1) >= low) & (lit.amax(1) <= high)).tolist()

    def log_det(self, images: Float[Tensor, "batch 3 rows columns"]) -> Float64[Tensor, " batch"]:
        """log |det J| on the numbers x of the images: the sum over them of

        log gain + log gamma + (gamma - 1) log(y before gamma) + log(what undoing the blur multiplies a cosine by)
        """
        count = images[0, 0].numel()
        total = images.new_full((len(images),), count * sum(map(math.log, self.gain)), dtype=torch.float64)
        if self.gamma != 1:
            stretched = math.log(self.gamma) + (self.gamma - 1) * self._lit(images.double()).clamp(min=1e-3).log()
            total += stretched.flatten(1).sum(1)
        if self.sharpen:
            total += images.shape[1] * self._louder(images.shape[-2:]).double().log().sum()
        return total.cpu()

    def _lit(self, images: Float[Tensor, "batch 3 rows columns"]) -> Float[Tensor, "batch 3 rows columns"]:
        gain, offset = (images.new_tensor(value).view(1, 3, 1, 1) for value in (self.gain, self.offset))
        return gain * self._unveiled(images) + offset

    def _unveiled(self, images: Float[Tensor, "batch 3 rows columns"]) -> Float[Tensor, "batch 3 rows columns"]:
        if not self.veil:
            return images
        grid = images.new_tensor(self.veil).view(1, 3, math.isqrt(len(self.veil) // 3), -1)
        return images - F.interpolate(grid, images.shape[-2:], mode="bilinear", align_corners=False)

    def _sharpened(self, images: Float[Tensor, "batch 3 rows columns"]) -> Float[Tensor, "batch 3 rows columns"]:
        """A blur of a picture that is mirrored at its borders multiplies its cosines, each by itself (DCT-II)."""
        if not self.sharpen:
            return images
        down, across = (_cosines(length).to(images) for length in images.shape[-2:])
        return down.T @ (self._louder(images.shape[-2:]).to(images) * (down @ images @ across.T)) @ across

    def _louder(self, shape: torch.Size) -> Float64[Tensor, "rows columns"]:
        """What each cosine is multiplied by."""
        sigma = self.sharpen * min(shape)
        down, across = (math.pi * torch.arange(length, dtype=torch.float64) / length for length in shape)
        return (sigma**2 / 2 * (down[:, None] ** 2 + across[None] ** 2)).exp().clamp(max=LOUDEST)

    def _matrix(self, shape: torch.Size) -> Float32[Tensor, "3 3"]:
        """A: where each point of the image goes, in coordinates of -1 to 1 to the right and down."""
        rows, columns = shape
        angle, side = math.radians(self.turn), torch.tensor([columns / 2, rows / 2])
        cos, sin = math.cos(angle), math.sin(angle)
        mirror = torch.tensor([[-1.0 if self.flip else 1.0, 0.0], [0.0, 1.0]])
        linear = self.scale * torch.tensor([[cos, sin], [-sin, cos]]) @ mirror
        matrix = torch.eye(3)
        matrix[:2, :2] = linear * side[None] / side[:, None]
        return matrix

    def _rolled(
        self, images: Float[Tensor, "batch channels rows columns"], sign: int
    ) -> Float[Tensor, "batch channels rows columns"]:
        rows, columns = images.shape[-2:]
        right, down = self.shift
        return images.roll((sign * round(down * rows), sign * round(right * columns)), (-2, -1))

    def _turned(
        self,
        images: Float[Tensor, "batch channels rows columns"],
        matrix: Float32[Tensor, "3 3"],
        interpolation: str = "bilinear",
    ) -> Float[Tensor, "batch channels rows columns"]:
        if (self.turn, self.scale, self.flip) == (0.0, 1.0, False):
            return images
        inverse = torch.linalg.inv(matrix)[:2].to(images).expand(len(images), 2, 3)
        grid = F.affine_grid(inverse, list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, mode=interpolation, padding_mode="border", align_corners=False)


def _cosines(length: int) -> Float64[Tensor, "frequencies points"]:
    """The orthonormal cosine transform, its rows the waves."""
    k = torch.arange(length, dtype=torch.float64)
    waves = torch.cos(math.pi * (k[None] + 0.5) * k[:, None] / length) * (2 / length) ** 0.5
    waves[0] /= 2**0.5
    return waves


IDENTITY = Transformation()
