"""Which scenes there are: shapes, colours, places, light, ground and camera, decided before anything is drawn.

Scene k of a split is a function of (split, k) alone.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

import torch

from diffcern.data.scenes.geometry import VIEW, Camera, Light, Scene, Thing, fits, project
from diffcern.data.scenes.shapes import CLASSES
from diffcern.data.scenes.textures import SEEN, Colour, Texture
from diffcern.rng import generator

T = TypeVar("T")
SPLITS = {"train": 20_000, "validation": 500, "test": 1_000}
SEED = 0  # never changes: another seed would draw other scenes than the shipped weights were trained on
COLOURS: dict[str, tuple[float, float, float]] = {  # hue in degrees, saturation and value
    "red": (0, 0.85, 0.85),
    "green": (125, 0.75, 0.65),
    "blue": (225, 0.85, 0.8),
    "yellow": (54, 0.9, 0.95),
    "purple": (285, 0.7, 0.62),
    "orange": (26, 0.95, 0.97),
    "cyan": (182, 0.75, 0.88),
    "white": (50, 0.03, 0.97),
}
COUNTS = (1, 1, 2, 2, 3, 3, 3, 4, 4, 4)  # how many things, at equal chances
FOCUS = (0.3, 0.5)  # apparent height of the main thing, as a share of the image's side
TRIES = 16  # places tried for a thing before the scene goes without it


@lru_cache(maxsize=len(SPLITS))
def targets(split: str) -> tuple[int, ...]:
    """The class of every scene's main thing: every six successive scenes show all six, in any order."""
    blocks = -(-SPLITS[split] // len(CLASSES))
    order = torch.rand(blocks, len(CLASSES), generator=generator(SEED, "scenes", split, "classes")).argsort(1)
    return tuple(order.flatten()[: SPLITS[split]].tolist())


def name(split: str, index: int) -> str:
    """The id of a scene, the key of its random numbers."""
    return f"scenes-{split}-{index:06d}"


def layout(split: str, index: int) -> Scene:
    """Scene `index` of `split`: 1 to 4 things, the main one at least three quarters in view."""
    dice = Dice(generator(SEED, name(split, index)))
    camera = Camera(dice.between(2.9, 3.6), dice.between(0.46, 0.56))
    shade = dice.between(0.45, 0.75)
    ground = _muted(dice, shade, 0.18)
    backdrop = _muted(dice, dice.between(0.6, 0.9), 0.2)
    floor = _texture(dice, dice.between(0.5, 1.0), scaled(ground, dice.between(0.72, 0.86)))
    count = dice.choice(COUNTS)
    shape = CLASSES[targets(split)[index]]
    things = [_main(dice, camera, shape)]
    for _ in range(count - 1):
        things += _another(dice, camera, things)
    return Scene(name(split, index), tuple(things), _light(dice), camera, ground, floor, backdrop)


class Dice:
    """Uniform draws from one generator: as many as a scene can need are drawn at once, which is much faster."""

    def __init__(self, rng: torch.Generator) -> None:
        self._draws = iter(torch.rand(1024, generator=rng, dtype=torch.float64).tolist())

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * next(self._draws)

    def choice(self, options: Sequence[T]) -> T:
        return options[int(next(self._draws) * len(options))]


def _main(dice: Dice, camera: Camera, shape: str) -> Thing:
    for _ in range(TRIES):
        height, right, z = dice.between(*FOCUS), dice.between(-0.4, 0.4), dice.between(3.8, 6.0)
        thing = _thing(dice, camera, shape, dice.choice(tuple(COLOURS)), height, right, z)
        if fits(camera, [thing]):
            return thing
    return _thing(dice, camera, shape, dice.choice(tuple(COLOURS)), FOCUS[0], 0.0, 5.0)


def _another(dice: Dice, camera: Camera, things: Sequence[Thing]) -> list[Thing]:
    taken = {(thing.shape, thing.colour) for thing in things}
    for _ in range(TRIES):
        shape, colour = dice.choice(CLASSES), dice.choice(tuple(COLOURS))
        height, right, z = dice.between(0.15, 0.32), dice.between(-0.85, 0.85), dice.between(3.6, 9.5)
        thing = _thing(dice, camera, shape, colour, height, right, z)
        if (shape, colour) not in taken and fits(camera, [*things, thing]):
            return [thing]
    return []


def _thing(dice: Dice, camera: Camera, shape: str, colour: str, height: float, right: float, z: float) -> Thing:
    """One whose apparent height is about `height` and whose foot is seen at `right` in the frame."""
    _, _, depth = project(camera, 0.0, 0.0, z)
    hue, saturation, value = COLOURS[colour]
    hue += dice.between(-5, 5)
    saturation = min(1.0, max(0.0, saturation + dice.between(-0.05, 0.05)))
    value = min(1.0, value + dice.between(-0.05, 0.05))
    rgb = colorsys.hsv_to_rgb(hue / 360 % 1, saturation, value)
    second = scaled(rgb, dice.between(0.5, 0.65))
    if colour != "white" and dice.between(0, 1) < 0.4:
        second = mixed(rgb, (1.0, 1.0, 1.0), dice.between(0.5, 0.65))
    texture = _texture(dice, dice.between(3.0, 5.0), second)
    yaw = dice.between(-0.8, 0.8) if shape == "ring" else dice.between(0, 2 * math.pi)
    return Thing(shape, colour, rgb, height * 2 * VIEW * depth, right * VIEW * depth, z, yaw, texture)


def _texture(dice: Dice, scale: float, second: Colour) -> Texture:
    name = dice.choice(tuple(SEEN))
    return Texture(name, scale, dice.between(0, math.pi), (dice.between(0, 1), dice.between(0, 1)), second)


def _light(dice: Dice) -> Light:
    """Above, from the camera's side of the things, so that what is seen is lit."""
    rise, turn = dice.between(0.6, 1.15), dice.between(-1.3, 1.3)
    direction = (math.cos(rise) * math.sin(turn), math.sin(rise), -math.cos(rise) * math.cos(turn))
    warmth = dice.between(-0.06, 0.06)
    return Light(direction, (1 + warmth, 1.0, 1 - warmth), dice.between(0.35, 0.5))


def _muted(dice: Dice, value: float, saturation: float) -> Colour:
    return colorsys.hsv_to_rgb(dice.between(0, 1), dice.between(0.02, saturation), value)


def scaled(rgb: Colour, by: float) -> Colour:
    return rgb[0] * by, rgb[1] * by, rgb[2] * by


def mixed(rgb: Colour, other: Colour, share: float) -> Colour:
    r, g, b = (a + share * (c - a) for a, c in zip(rgb, other, strict=True))
    return r, g, b
