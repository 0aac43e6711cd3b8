"""What a scene is made of, and where in the picture its things are seen.

Lengths are in metres: x to the right, y up, z away from the camera, which stands at (0, height, 0) and looks down by
`pitch` (radians). The frame, what the picture shows, spans [-1, 1] to the right and upwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from diffcern.data.scenes.shapes import SHAPES
from diffcern.data.scenes.textures import Colour, Texture

VIEW = 0.5  # tangent of half the angle of view
FAR = 12.0  # depth of the backdrop, and where the ground ends


@dataclass(frozen=True)
class Thing:
    """A shape of `size` metres on the ground at (x, z), turned by `yaw` (radians)."""

    shape: str
    colour: str
    rgb: Colour
    size: float
    x: float
    z: float
    yaw: float
    texture: Texture


@dataclass(frozen=True)
class Light:
    """direction: unit vector towards it. ambient: the share of light that comes from everywhere."""

    direction: tuple[float, float, float]
    rgb: Colour
    ambient: float


@dataclass(frozen=True)
class Camera:
    height: float
    pitch: float


@dataclass(frozen=True)
class Scene:
    """things: the main one first; no two share both shape and colour. ground, backdrop: first colours."""

    id: str
    things: tuple[Thing, ...]
    light: Light
    camera: Camera
    ground: Colour
    texture: Texture
    backdrop: Colour


@dataclass(frozen=True)
class Box:
    """Where in the frame a thing is seen, and its nearest depth."""

    left: float
    right: float
    bottom: float
    top: float
    near: float

    @property
    def height(self) -> float:
        """As a share of the image's side."""
        return (self.top - self.bottom) / 2

    @property
    def inside(self) -> bool:
        return min(self.left, self.bottom) > -0.97 and max(self.right, self.top) < 0.97 and self.near > 0

    def covers(self, other: Box) -> float:
        """The share of `other` that lies within this box."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        area = (other.right - other.left) * (other.top - other.bottom)
        return max(width, 0.0) * max(height, 0.0) / area


def project(camera: Camera, x: float, y: float, z: float) -> tuple[float, float, float]:
    """Right and up in the frame, and the depth, of a point in metres."""
    sin, cos = math.sin(camera.pitch), math.cos(camera.pitch)
    rise = y - camera.height
    depth = z * cos - rise * sin
    reach = max(depth, 1e-6) * VIEW
    return x / reach, (rise * cos + z * sin) / reach, depth


def box(camera: Camera, thing: Thing) -> Box:
    """The frame's rectangle around the thing's bounding box, which is a little larger than the thing."""
    points = [project(camera, *corner) for corner in corners(thing)]
    right, up, depth = zip(*points, strict=True)
    return Box(min(right), max(right), min(up), max(up), min(depth))


def corners(thing: Thing) -> list[tuple[float, float, float]]:
    """The eight corners of the thing's bounding box, in metres."""
    shape, sin, cos = SHAPES[thing.shape], math.sin(thing.yaw), math.cos(thing.yaw)
    found = []
    for a in (-shape.reach[0] * thing.size, shape.reach[0] * thing.size):
        for b in (-shape.reach[1] * thing.size, shape.reach[1] * thing.size):
            x, z = thing.x + cos * a + sin * b, thing.z - sin * a + cos * b
            found += [(x, 0.0, z), (x, shape.height * thing.size, z)]
    return found


def fits(camera: Camera, things: Sequence[Thing]) -> bool:
    """Whether all are in the frame, none meets another, the main one (the first) stands out and is hardly hidden,
    and at least half of each other one is in view."""
    if max(thing.size for thing in things) > 0.85 * camera.height:
        return False  # the camera looks down on everything: a cube shows its top
    for i, a in enumerate(things):
        if any(math.hypot(a.x - b.x, a.z - b.z) < 1.05 * (radius(a) + radius(b)) for b in things[:i]):
            return False
    boxes = [box(camera, thing) for thing in things]
    if not all(found.inside for found in boxes):
        return False
    if any(found.height > 0.75 * boxes[0].height for found in boxes[1:]):
        return False
    for i, seen in enumerate(boxes):
        hidden = sum(boxes[k].covers(seen) for k in range(len(things)) if things[k].z < things[i].z)
        if hidden > (0.5 if i else 0.2):
            return False
    return True


def radius(thing: Thing) -> float:
    """Of the circle on the ground that holds the thing."""
    shape = thing.shape
    reach = SHAPES[shape].reach
    return thing.size * (max(reach) if shape in ("sphere", "cylinder", "cone") else math.hypot(*reach))
