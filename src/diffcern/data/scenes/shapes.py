"""The six shapes, each standing on y = 0 and one unit high: where a ray enters them, their normals, their charts.

`hit(o, d)` gives the smallest t > 0 with o + t d on the surface, infinity where the ray misses; o and d are three
arrays or numbers that broadcast. A normal and a chart (the two surface coordinates that carry a texture, in units of
the height) follow from a point on the surface.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from diffcern.data.scenes.textures import Array

Vector = tuple[Array, Array, Array]
Number = Array | float
Rays = tuple[Number, Number, Number]

CUBE = 0.46  # half a side: the cube is a little lower than the others, lest it look the largest
CYLINDER = 0.38  # radius
CONE = 0.5  # radius at the ground
PYRAMID = 0.5  # half a side at the ground
RING, HOLE, BAND = 0.5, 0.29, 0.17  # outer radius, inner radius, half the thickness along the axis z


@dataclass(frozen=True)
class Shape:
    """reach: the half extents along x and z. height: the extent along y."""

    hit: Callable[[Rays, Rays], Array]
    normal: Callable[[Vector], Vector]
    chart: Callable[[Vector, Vector], tuple[Array, Array]]
    reach: tuple[float, float]
    height: float = 1.0


def _sphere_hit(o: Rays, d: Rays) -> Array:
    near, _ = _roots(*_quadratic((o[0], o[1] - 0.5, o[2]), d, 0.5))
    return _ahead(near)


def _sphere_normal(p: Vector) -> Vector:
    return 2 * p[0], 2 * p[1] - 1, 2 * p[2]


def _cube_hit(o: Rays, d: Rays) -> Array:
    slabs = [_slab(o[0], d[0], -CUBE, CUBE), _slab(o[1], d[1], 0.0, 2 * CUBE), _slab(o[2], d[2], -CUBE, CUBE)]
    near = np.maximum(np.maximum(slabs[0][0], slabs[1][0]), slabs[2][0])
    far = np.minimum(np.minimum(slabs[0][1], slabs[1][1]), slabs[2][1])
    return _ahead(np.where(near < far, near, np.inf))


def _cube_normal(p: Vector) -> Vector:
    x, y, z = p[0], p[1] - CUBE, p[2]
    ax, ay, az = np.abs(x), np.abs(y), np.abs(z)
    top = (ay >= ax) & (ay >= az)
    side = ~top & (ax >= az)
    return np.where(side, np.sign(x), 0.0), np.where(top, np.sign(y), 0.0), np.where(top | side, 0.0, np.sign(z))


def _cylinder_hit(o: Rays, d: Rays) -> Array:
    enter, leave = _roots(*_quadratic((o[0], 0.0, o[2]), (d[0], 0.0, d[2]), CYLINDER))
    low, high = _slab(o[1], d[1], 0.0, 1.0)
    near = np.maximum(enter, low)
    return _ahead(np.where(near < np.minimum(leave, high), near, np.inf))


def _cylinder_normal(p: Vector) -> Vector:
    cap = p[1] > 1 - 1e-4
    return np.where(cap, 0.0, p[0] / CYLINDER), cap.astype(np.float32), np.where(cap, 0.0, p[2] / CYLINDER)


def _cone_hit(o: Rays, d: Rays) -> Array:
    below, fall = 1 - o[1], -d[1]  # downwards from the tip
    a = d[0] * d[0] + d[2] * d[2] - CONE**2 * fall * fall
    b = o[0] * d[0] + o[2] * d[2] - CONE**2 * below * fall
    c = o[0] * o[0] + o[2] * o[2] - CONE**2 * below * below
    best = np.asarray(np.inf, np.float32)
    for t in _roots(a, b, c):
        y = below + t * fall
        best = np.minimum(best, _ahead(np.where((y > 0) & (y < 1), t, np.inf)))
    return best


def _cone_normal(p: Vector) -> Vector:
    up = 1 / np.sqrt(1 + 1 / CONE**2)  # its slope is the same everywhere
    out = np.sqrt((1 - up**2) / (p[0] ** 2 + p[2] ** 2 + 1e-12))
    return p[0] * out, np.full_like(p[1], up), p[2] * out


def _pyramid_hit(o: Rays, d: Rays) -> Array:
    near, far = np.asarray(-np.inf, np.float32), np.asarray(np.inf, np.float32)
    for axis in (0, 2):
        for sign in (-1.0, 1.0):
            outside = sign * o[axis] + PYRAMID * o[1] - PYRAMID
            slope = sign * d[axis] + PYRAMID * d[1]
            t = -outside / slope
            entering = np.asarray(slope) < 0
            near = np.where(entering, np.maximum(near, t), near)
            far = np.where(entering, far, np.minimum(far, t))
    base = _slab(o[1], d[1], 0.0, 1.0)
    near, far = np.maximum(near, base[0]), np.minimum(far, base[1])
    return _ahead(np.where(near < far, near, np.inf))


def _pyramid_normal(p: Vector) -> Vector:
    out, up = 1 / np.sqrt(1 + PYRAMID**2), PYRAMID / np.sqrt(1 + PYRAMID**2)
    sideways = np.abs(p[0]) >= np.abs(p[2])
    x, z = np.where(sideways, out * np.sign(p[0]), 0.0), np.where(sideways, 0.0, out * np.sign(p[2]))
    return x, np.full_like(p[1], up), z


def _ring_hit(o: Rays, d: Rays) -> Array:
    """A thick band: its outer face where the ray enters it, its inner face where it leaves the hole, one flat face."""
    middle, across = (o[0], o[1] - 0.5, 0.0), (d[0], d[1], 0.0)
    outer, _ = _roots(*_quadratic(middle, across, RING))
    _, inner = _roots(*_quadratic(middle, across, HOLE))
    best = np.asarray(np.inf, np.float32)
    for t in (outer, inner):
        best = np.minimum(best, _ahead(np.where(np.abs(o[2] + t * d[2]) <= BAND, t, np.inf)))
    flat, _ = _slab(o[2], d[2], -BAND, BAND)
    x, y = middle[0] + flat * across[0], middle[1] + flat * across[1]
    radius = x * x + y * y
    return np.minimum(best, _ahead(np.where((radius <= RING**2) & (radius >= HOLE**2), flat, np.inf)))


def _ring_normal(p: Vector) -> Vector:
    x, y, z = p[0], p[1] - 0.5, p[2]
    flat = np.abs(z) > BAND - 1e-4
    radius = np.sqrt(x * x + y * y)
    out = np.where(flat, 0.0, np.where(radius > (RING + HOLE) / 2, 1.0, -1.0) / radius)
    return x * out, y * out, np.where(flat, np.sign(z), 0.0)


def _round_chart(p: Vector, n: Vector) -> tuple[Array, Array]:
    """Around the upright axis and up; on a flat top, from above."""
    top = n[1] > 0.99
    return np.where(top, p[0], np.arctan2(p[0], p[2]) * 0.5), np.where(top, p[2], p[1])


def _flat_chart(p: Vector, n: Vector) -> tuple[Array, Array]:
    """Along each face."""
    top, side = n[1] > 0.9, np.abs(n[0]) > np.abs(n[2])
    return np.where(top | ~side, p[0], p[2]), np.where(top, p[2], p[1])


def _ring_chart(p: Vector, n: Vector) -> tuple[Array, Array]:
    """Around the ring, and across it."""
    across = np.where(np.abs(n[2]) > 0.9, np.sqrt(p[0] ** 2 + (p[1] - 0.5) ** 2), p[2])
    return np.arctan2(p[1] - 0.5, p[0]) * 0.5, across


def _quadratic(o: Rays, d: Rays, radius: float) -> tuple[Array, Array, Array]:
    """a, b, c of |o + t d|^2 = radius^2, that is a t^2 + 2 b t + c = 0."""
    a = d[0] * d[0] + d[1] * d[1] + d[2] * d[2]
    b = o[0] * d[0] + o[1] * d[1] + o[2] * d[2]
    return np.asarray(a), np.asarray(b), np.asarray(o[0] * o[0] + o[1] * o[1] + o[2] * o[2] - radius * radius)


def _roots(a: Number, b: Number, c: Number) -> tuple[Array, Array]:
    """The solutions of a t^2 + 2 b t + c = 0; NaN, which no comparison holds for, where there are none."""
    root = np.sqrt(b * b - a * c)
    return (-b - root) / a, (-b + root) / a


def _slab(o: Number, d: Number, low: float, high: float) -> tuple[Array, Array]:
    """Where the ray enters and leaves low <= o + t d <= high."""
    first, second = (low - o) / d, (high - o) / d
    return np.minimum(first, second), np.maximum(first, second)


def _ahead(t: Array) -> Array:
    return np.where(t > 1e-4, t, np.float32(np.inf))


SHAPES: dict[str, Shape] = {
    "sphere": Shape(_sphere_hit, _sphere_normal, _round_chart, (0.5, 0.5)),
    "cube": Shape(_cube_hit, _cube_normal, _flat_chart, (CUBE, CUBE), 2 * CUBE),
    "cylinder": Shape(_cylinder_hit, _cylinder_normal, _round_chart, (CYLINDER, CYLINDER)),
    "cone": Shape(_cone_hit, _cone_normal, _round_chart, (CONE, CONE)),
    "pyramid": Shape(_pyramid_hit, _pyramid_normal, _flat_chart, (PYRAMID, PYRAMID)),
    "ring": Shape(_ring_hit, _ring_normal, _ring_chart, (RING, BAND)),
}
CLASSES = tuple(SHAPES)
