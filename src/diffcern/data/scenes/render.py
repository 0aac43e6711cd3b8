"""From a scene to its picture, its mask and its depths, by casting rays: two by two per pixel.

Depth is the distance along the camera's axis, in metres. A thing throws a hard shadow on the ground, not on others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffcern.data.scenes.geometry import FAR, VIEW, Camera, Scene, Thing, corners, project
from diffcern.data.scenes.shapes import CLASSES, SHAPES, Array, Vector
from diffcern.data.scenes.textures import weights

MASK_NAMES = ("background", "ground", *CLASSES)
SAMPLES = 2  # rays per pixel along each side
HAZE = 0.5  # how far the end of the ground fades into the backdrop
SHINE, GLOSS = 0.3, 24.0  # strength and exponent of the highlight

Window = tuple[slice, slice]
Indices = NDArray[np.int8]


@dataclass(frozen=True)
class Trace:
    """What every ray meets. labels `[S, S]`: 0 the backdrop, 1 the ground, 2 + k thing k. depth `[S, S]` in metres.

    windows: the part of the frame around each thing. alone: how many rays would meet each thing if it stood alone.
    """

    labels: Indices
    depth: Array
    windows: tuple[Window, ...]
    alone: tuple[int, ...]


def render(scene: Scene, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Image `[3, side, side]` in [0, 1], mask `[side, side]` of indices into `MASK_NAMES`, depth `[side, side]`."""
    with np.errstate(all="ignore"):  # rays that miss or run along a face divide by zero; comparisons drop them
        found = trace(scene, side * SAMPLES)
        image = average(shade(scene, found))
    mask, depth = pixels(scene, found)
    return torch.from_numpy(image), mask, depth


def pixels(scene: Scene, found: Trace) -> tuple[Tensor, Tensor]:
    """Mask and depth of the pixels: those of the second nearest of the four rays, so of the majority."""
    d, k = _quarters(found.depth), _quarters(found.labels)
    low, high = np.minimum(d[0], d[1]), np.maximum(d[0], d[1])
    low2, high2 = np.minimum(d[2], d[3]), np.maximum(d[2], d[3])
    depth = np.minimum(np.maximum(low, low2), np.minimum(high, high2))
    labels = np.where(d[0] == depth, k[0], np.where(d[1] == depth, k[1], np.where(d[2] == depth, k[2], k[3])))
    classes = np.array([0, 1, *(2 + CLASSES.index(thing.shape) for thing in scene.things)], np.int64)
    return torch.from_numpy(classes[labels]), torch.from_numpy(depth)


def average(image: Array) -> Array:
    """`[3, S, S]` -> `[3, S / 2, S / 2]`."""
    a, b, c, d = _quarters(image)
    return (a + b + c + d) / 4


def trace(scene: Scene, rays: int) -> Trace:
    """Cast `rays` x `rays` rays."""
    directions = _directions(scene.camera, rays)
    ground = -scene.camera.height / directions[1]
    on_ground = (ground > 0) & (ground < FAR)
    depth = np.broadcast_to(np.where(on_ground, ground, np.float32(FAR)), (rays, rays)).copy()
    labels = np.broadcast_to(on_ground.astype(np.int8), (rays, rays)).copy()
    windows = tuple(_window(scene.camera, corners(thing), rays) for thing in scene.things)
    alone = []
    for k, (thing, window) in enumerate(zip(scene.things, windows, strict=True)):
        origin, d = _local(thing, scene.camera, _crop(directions, window))
        t = SHAPES[thing.shape].hit(origin, d)
        alone.append(int(np.count_nonzero(t < FAR)))
        nearer = t < depth[window]
        np.copyto(depth[window], t, where=nearer)
        np.copyto(labels[window], np.int8(2 + k), where=nearer)
    return Trace(labels, depth, windows, tuple(alone))


def shade(scene: Scene, found: Trace) -> Array:
    """The picture `[3, S, S]` in [0, 1], one colour per ray."""
    rays = len(found.depth)
    directions = _directions(scene.camera, rays)
    image = np.empty((3, rays, rays), np.float32)
    _shade_far(scene, directions, image)
    for thing, (rows, columns, points, normals) in zip(scene.things, surfaces(scene, found), strict=True):
        a, b = SHAPES[thing.shape].chart(points, normals)
        weight = thing.texture.contrast * weights(thing.texture, a, b)
        light = _turned(scene.light.direction, thing.yaw)
        d = _turned((directions[0][0, columns], directions[1][rows, 0], directions[2][rows, 0]), thing.yaw)
        lambert = np.maximum(_dot(normals, light), 0)
        half = 1 / np.sqrt(_dot(d, d))
        half_way = (light[0] - d[0] * half, light[1] - d[1] * half, light[2] - d[2] * half)
        gloss = np.maximum(_dot(normals, half_way), 0) / np.sqrt(_dot(half_way, half_way))
        highlight = SHINE * gloss**GLOSS
        for channel, (first, second) in enumerate(zip(thing.rgb, thing.texture.second, strict=True)):
            tint = scene.light.rgb[channel]
            received = scene.light.ambient + ((1 - scene.light.ambient) * 1.15 * tint) * lambert
            image[channel, rows, columns] = (first + (second - first) * weight) * received + tint * highlight
    return np.clip(image, 0, 1, out=image)


def surfaces(scene: Scene, found: Trace) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp], Vector, Vector]]:
    """For each thing, of the rays that meet it: rows, columns, and points and normals in its own frame."""
    directions = _directions(scene.camera, len(found.depth))
    for k, (thing, window) in enumerate(zip(scene.things, found.windows, strict=True)):
        rows, columns = np.nonzero(found.labels[window] == 2 + k)
        rows, columns = rows + window[0].start, columns + window[1].start
        here = (directions[0][0, columns], directions[1][rows, 0], directions[2][rows, 0])
        o, d = _local(thing, scene.camera, here)
        t = found.depth[rows, columns]
        points = (o[0] + t * d[0], o[1] + t * d[1], o[2] + t * d[2])
        yield rows, columns, points, SHAPES[thing.shape].normal(points)


def _shade_far(scene: Scene, directions: Vector, image: Array) -> None:
    """Ground and backdrop, as if no thing hid them."""
    rays = image.shape[1]
    light, depth = scene.light, -scene.camera.height / directions[1]
    first_row = int(np.argmax((depth > 0) & (depth < FAR)))
    rows = slice(first_row, None)
    depth = depth[rows]
    x, z = directions[0] * depth, np.broadcast_to(directions[2][rows] * depth, (rays - first_row, rays))
    weight = scene.texture.contrast * weights(scene.texture, x, z)
    lit = np.ones((rays, rays), np.float32)
    for thing in scene.things:
        window = _window(scene.camera, _shadow(thing, light.direction), rays)
        window = (slice(max(window[0].start, first_row), max(window[0].stop, first_row)), window[1])
        inner = (slice(window[0].start - first_row, window[0].stop - first_row), window[1])
        o = _turned((x[inner] - thing.x, 0.0, z[inner] - thing.z), thing.yaw)
        d = _turned(light.direction, thing.yaw)
        met = SHAPES[thing.shape].hit((o[0] / thing.size, 0.0, o[2] / thing.size), d) < np.inf
        np.copyto(lit[window], 0, where=met)
    sky = np.linspace(1.06, 0.94, max(first_row, 1), dtype=np.float32)[:, None]
    haze = HAZE * (depth / FAR) ** 2
    for channel, (first, second) in enumerate(zip(scene.ground, scene.texture.second, strict=True)):
        far, tint = scene.backdrop[channel], light.rgb[channel]
        received = light.ambient + ((1 - light.ambient) * 1.15 * light.direction[1] * tint) * lit[rows]
        near = (first + (second - first) * weight) * received
        image[channel, rows] = near + haze * (far * tint - near)
        image[channel, :first_row] = sky[:first_row] * (far * tint)


def _shadow(thing: Thing, light: tuple[float, float, float]) -> list[tuple[float, float, float]]:
    """Where the corners of the thing's bounding box throw their shadow."""
    return [(x - light[0] / light[1] * y, 0.0, z - light[2] / light[1] * y) for x, y, z in corners(thing)]


def _window(camera: Camera, points: list[tuple[float, float, float]], rays: int) -> Window:
    """The rows and columns between the points; all of them where a point is not in front of the camera."""
    right, up, depth = zip(*(project(camera, *point) for point in points), strict=True)
    if min(depth) < 0.1:
        return slice(0, rays), slice(0, rays)
    left, end = (math.floor((1 + min(right)) / 2 * rays), math.ceil((1 + max(right)) / 2 * rays))
    top, bottom = (math.floor((1 - max(up)) / 2 * rays), math.ceil((1 - min(up)) / 2 * rays))
    return _span(top, bottom, rays), _span(left, end, rays)


def _span(start: int, stop: int, length: int) -> slice:
    start = min(max(start, 0), length)
    return slice(start, min(max(stop, start), length))


@lru_cache(maxsize=8)
def _frame(rays: int) -> tuple[Array, Array]:
    """Right `[1, S]` and up `[S, 1]` of every ray where the depth is 1."""
    right = ((np.arange(rays, dtype=np.float32) + 0.5) * 2 / rays - 1) * np.float32(VIEW)
    return right[None], -right[:, None]


def _directions(camera: Camera, rays: int) -> Vector:
    """x `[1, S]`, y `[S, 1]`, z `[S, 1]` of every ray, scaled so that its parameter is the depth."""
    right, up = _frame(rays)
    sin, cos = math.sin(camera.pitch), math.cos(camera.pitch)
    return right, up * cos - sin, up * sin + cos


def _crop(directions: Vector, window: Window) -> Vector:
    rows, columns = window
    return directions[0][:, columns], directions[1][rows], directions[2][rows]


def _local(thing: Thing, camera: Camera, directions: Vector) -> tuple[tuple[float, float, float], Vector]:
    """The camera's place and the rays in the thing's own frame, where it is one unit high."""
    x, y, z = _turned(directions, thing.yaw)
    o = _turned((-thing.x, camera.height, -thing.z), thing.yaw)
    size = thing.size
    return (o[0] / size, o[1] / size, o[2] / size), (x / size, y / size, z / size)


def _turned(vector: Any, yaw: float) -> Any:
    """A vector of numbers or arrays, from the world's axes to those of a thing turned by `yaw`."""
    sin, cos = math.sin(yaw), math.cos(yaw)
    x, y, z = vector
    return x * cos - z * sin, y, x * sin + z * cos


def _dot(a: Any, b: Any) -> Any:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _quarters(values: Array) -> tuple[Array, Array, Array, Array]:
    """The four rays of every pixel."""
    return values[..., ::2, ::2], values[..., ::2, 1::2], values[..., 1::2, ::2], values[..., 1::2, 1::2]
