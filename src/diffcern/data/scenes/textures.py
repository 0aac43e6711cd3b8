"""What is painted on a surface: four textures of training, four that only the rendition "textures" shows.

A texture is a weight in [0, 1] over the surface's two coordinates: 0 where its first colour shows, 1 where its second.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]  # of float32, which arithmetic with Python's numbers keeps
Colour = tuple[float, float, float]  # red, green, blue in [0, 1]


@dataclass(frozen=True)
class Texture:
    """The pattern `name` with `scale` periods per unit of the surface, turned by `angle` (radians) and moved by
    `offset` periods; `second` replaces the first colour by the share `contrast` where the pattern's weight is 1."""

    name: str
    scale: float
    angle: float
    offset: tuple[float, float]
    second: Colour
    contrast: float = 1.0


def weights(texture: Texture, a: Array, b: Array) -> Array:
    """The texture at the surface coordinates (a, b), in [0, 1], of their shape."""
    cos, sin = float(np.cos(texture.angle)), float(np.sin(texture.angle))
    u = (cos * texture.scale) * a + ((sin * texture.scale) * b + texture.offset[0])
    v = (cos * texture.scale) * b - ((sin * texture.scale) * a - texture.offset[1])
    return TEXTURES[texture.name](u, v)


def plain(u: Array, v: Array) -> Array:
    """One colour."""
    return np.zeros_like(u)


def stripes(u: Array, v: Array) -> Array:
    """Bands, two fifths of them in the second colour."""
    return _where(_part(u) < 0.4)


def checks(u: Array, v: Array) -> Array:
    """A chess-board."""
    return _where((_part(u / 2) < 0.5) != (_part(v / 2) < 0.5))


def dots(u: Array, v: Array) -> Array:
    """Round dots on a square grid."""
    return _where((_part(u) - 0.5) ** 2 + (_part(v) - 0.5) ** 2 < 0.09)


def bricks(u: Array, v: Array) -> Array:
    """A brick wall: joints in the second colour, every other row moved by half a brick."""
    row = np.floor(v * 1.5)
    return _where((_part(v * 1.5) < 0.22) | (_part(0.75 * u + 0.5 * row) < 0.14))


def zigzag(u: Array, v: Array) -> Array:
    """Bands that turn left and right."""
    return _where(_part(v + np.abs(_part(u) - 0.5)) < 0.45)


def grain(u: Array, v: Array) -> Array:
    """Wavy growth rings, as of sawn wood: a soft pattern."""
    rings = u + 0.25 * np.sin(1.7 * v) + 0.12 * np.sin(4.1 * v + 1.3 * u)
    return (0.5 - 0.5 * np.cos((2 * np.pi) * rings)).astype(np.float32, copy=False) ** 2


def speckle(u: Array, v: Array) -> Array:
    """Cells of the second colour without order, as of granite."""
    i, j = np.floor(3 * u), np.floor(3 * v)
    return _where(_part(np.sin(12.9898 * i + 78.233 * j) * 437.5) < 0.4)


SEEN = {"plain": plain, "stripes": stripes, "checks": checks, "dots": dots}
UNSEEN = {"bricks": bricks, "zigzag": zigzag, "grain": grain, "speckle": speckle}
TEXTURES: dict[str, Callable[[Array, Array], Array]] = {**SEEN, **UNSEEN}


def _part(x: Array) -> Array:
    return x - np.floor(x)


def _where(inside: NDArray[np.bool_]) -> Array:
    return inside.astype(np.float32)
