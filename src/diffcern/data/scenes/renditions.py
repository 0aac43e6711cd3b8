"""The same scene drawn otherwise: what stands where, and so mask and depth, is unchanged.

"textures" and "light" change what is drawn; "drawing" and "poster" change how, as ImageNet-Sketch and ImageNet-R do.
Random choices are keyed by the scene and the rendition, not by severity: the same scene goes from 1 to 5.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from diffcern.data.scenes.geometry import Light, Scene, Thing
from diffcern.data.scenes.layout import SEED, Dice, mixed, scaled
from diffcern.data.scenes.render import SAMPLES, Trace, average, pixels, shade, surfaces, trace
from diffcern.data.scenes.shapes import Array
from diffcern.data.scenes.textures import UNSEEN, Colour, Texture
from diffcern.rng import generator

PAPER, PENCIL = (0.96, 0.95, 0.91), (0.16, 0.16, 0.2)
CREASE = 0.8  # cosine of the angle between neighbouring normals above which a surface counts as smooth


def draw(scene: Scene, side: int, name: str, severity: int) -> tuple[Tensor, Tensor, Tensor]:
    """As `render`, in the rendition `name` of `RENDITIONS` at severity 1 to 5."""
    dice = Dice(generator(SEED, "rendition", name, scene.id))
    with np.errstate(all="ignore"):  # as in `render`
        found = trace(scene, side * SAMPLES)
        image = average(RENDITIONS[name](scene, found, severity, dice))
    mask, depth = pixels(scene, found)
    return torch.from_numpy(image), mask, depth


def textures(scene: Scene, found: Trace, severity: int, dice: Dice) -> Array:
    """Textures that training does not show, on the things and on the ground; severity is their contrast."""
    things = tuple(replace(thing, texture=_unseen(dice, thing, severity)) for thing in scene.things)
    name, share = dice.choice(tuple(UNSEEN)), 0.12 + 0.08 * severity
    second = mixed(scene.ground, (0.05, 0.05, 0.05) if dice.between(0, 1) < 0.5 else (1.0, 1.0, 1.0), share)
    ground = replace(scene.texture, name=name, second=second)
    return shade(replace(scene, things=things, texture=ground), found)


def light(scene: Scene, found: Trace, severity: int, dice: Dice) -> Array:
    """Coloured light, light from just above the ground, or light from behind the things: one of the three."""
    kind, strength = dice.choice(("coloured", "low", "behind")), severity / 5
    x, y, z = scene.light.direction
    rise, turn = math.asin(y), math.atan2(x, -z)
    ambient = scene.light.ambient
    tint = mixed(scene.light.rgb, colorsys.hsv_to_rgb(dice.between(0, 1), 1.0, 1.0), 0.15 * strength)
    if kind == "coloured":
        tint = mixed(scene.light.rgb, colorsys.hsv_to_rgb(dice.between(0, 1), 0.85, 1.0), strength)
        ambient *= 1 - 0.5 * strength
    elif kind == "low":
        rise += strength * (0.1 - rise)
        ambient *= 1 - 0.6 * strength
    else:
        turn += strength * (math.copysign(math.pi, turn) - turn)
        ambient *= 1 - 0.6 * strength
    direction = (math.cos(rise) * math.sin(turn), math.sin(rise), -math.cos(rise) * math.cos(turn))
    return shade(replace(scene, light=Light(direction, tint, ambient)), found)


def drawing(scene: Scene, found: Trace, severity: int, dice: Dice) -> Array:
    """Pencil lines on paper along outlines and creases; severity is how far paper has replaced the picture."""
    share = (0.3, 0.5, 0.7, 0.85, 1.0)[severity - 1]
    firmness = dice.between(0.75, 1.0)
    paper = np.array(PAPER, np.float32)[:, None, None]
    ink = paper + firmness * (np.array(PENCIL, np.float32)[:, None, None] - paper)
    page = shade(scene, found)
    page += share * (paper - page)
    return np.where(lines(scene, found), ink, page)


def poster(scene: Scene, found: Trace, severity: int, dice: Dice) -> Array:
    """Flat colours, 6 down to 2 levels of each channel, with dark outlines."""
    steps = 6 - severity
    page = np.round(shade(scene, found) * steps) / steps
    return np.where(lines(scene, found), np.float32(0.05), page)


RENDITIONS: dict[str, Callable[[Scene, Trace, int, Dice], Array]] = {
    "textures": textures,
    "light": light,
    "drawing": drawing,
    "poster": poster,
}


def lines(scene: Scene, found: Trace) -> np.ndarray:
    """Whether a line runs through each ray `[S, S]`: outlines of things, the end of the ground, creases."""
    normals = np.zeros((3, *found.labels.shape), np.float32)
    for rows, columns, _, normal in surfaces(scene, found):
        normals[:, rows, columns] = normal
    line = np.zeros(found.labels.shape, bool)
    for axis in (0, 1):
        a, b = (found.labels.take(part, axis) for part in _neighbours(len(line)))
        n, m = (normals.take(part, axis + 1) for part in _neighbours(len(line)))
        edge = (a != b) | ((a > 1) & ((n * m).sum(0) < CREASE))
        for part in _neighbours(len(line)):
            where = [slice(None), slice(None)]
            where[axis] = slice(part[0], part[-1] + 1)
            line[tuple(where)] |= edge
    return line


def _neighbours(length: int) -> tuple[range, range]:
    return range(length - 1), range(1, length)


def _unseen(dice: Dice, thing: Thing, severity: int) -> Texture:
    dark = thing.colour == "white" or dice.between(0, 1) < 0.5
    second: Colour = scaled(thing.rgb, 0.1) if dark else (1.0, 1.0, 1.0)
    contrast = 0.35 + 0.13 * severity
    return replace(thing.texture, name=dice.choice(tuple(UNSEEN)), second=second, contrast=contrast)
