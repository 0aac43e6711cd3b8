"""Procedural textures, drawn from a CPU generator: fog's plasma and frost's ice."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Generator, Tensor

from ...optional import optional
from .blur import Array, gaussian

cv2 = optional("cv2")


def plasma(height: int, width: int, decay: float, generator: Generator) -> Tensor:
    """Diamond-square fractal `[H, W]`, stretched to [0, 1] before it is cut from the smallest power of two.

    It lies on a torus. The amplitude falls by decay ** 2 from one step to the next, because the published
    code multiplies a wobble by a random number of the same scale.
    """
    side = 1 << (max(height, width) - 1).bit_length()
    noise = 2 * torch.rand((side, side), generator=generator) - 1  # each point's own random number
    field = torch.zeros(side, side)
    step, amplitude = side, 1.0
    while step > 1:
        half = step // 2
        corners = field[::step, ::step]
        below, right = corners.roll(-1, 0), corners.roll(-1, 1)
        middles = (corners + below + right + below.roll(-1, 1)) / 4
        middles += amplitude * noise[half::step, half::step]
        above = (corners + right + middles + middles.roll(1, 0)) / 4
        beside = (corners + below + middles + middles.roll(1, 1)) / 4
        field[half::step, half::step] = middles
        field[::step, half::step] = above + amplitude * noise[::step, half::step]
        field[half::step, ::step] = beside + amplitude * noise[half::step, ::step]
        step, amplitude = half, amplitude / decay**2
    field -= field.min()
    return (field / field.max())[:height, :width]


def ice(height: int, width: int, scale: float, generator: Generator) -> Tensor:
    """A frosted pane `[3, H, W]` in [0, 1]: greyish blue banks of rime, whiter crystals grown on them.

    scale: pixels of the result per pixel of the pattern, in which a crystal measures about a hundred.
    """
    rime = plasma(height, width, 1.4, generator).numpy()
    grown = crystals(math.ceil(height / scale), math.ceil(width / scale), generator)
    needles = cv2.resize(grown, (width, height), interpolation=cv2.INTER_AREA)
    glow = gaussian(needles, 3 * scale)
    thickness = 1.4 * rime**2 + (0.2 + 0.8 * rime) * (needles + glow)
    shadow, light = torch.tensor([[0.16, 0.21, 0.27], [0.88, 0.95, 1.0]])[:, :, None, None]
    return torch.lerp(shadow, light, torch.from_numpy(1 - np.exp(-thickness)))


def crystals(height: int, width: int, generator: Generator) -> Array:
    """Feathers of needles `[H, W]` in [0, 1]: spines from random germs, barbs at 60 degrees on both sides."""

    def random(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    def ray(angle: Tensor) -> Tensor:
        return torch.stack([angle.cos(), angle.sin()], -1)

    germs, spines, barbs = 4 + height * width // 4000, 7, 18
    germ = (random(germs, 1, 1, 2) * 1.2 - 0.1) * torch.tensor([width, height])  # some lie beyond the border
    turns = random(germs, 1, 1) + (torch.arange(spines)[:, None] + random(germs, spines, 1)) / spines
    angle, length = 2 * math.pi * turns, 15 + 80 * random(germs, spines, 1) ** 2
    tip = germ + length[..., None] * ray(angle)
    part = random(germs, spines, barbs)
    foot = germ + (length * part)[..., None] * ray(angle)
    side = torch.where(torch.arange(barbs) % 2 == 0, math.pi / 3, -math.pi / 3)
    reach = 0.4 * length * (1 - part) * random(germs, spines, barbs)
    end = foot + reach[..., None] * ray(angle + side)

    canvas = np.zeros((height, width), np.uint8)
    for start, stop, tone in ((foot, end, 170), (germ.expand_as(tip), tip, 255)):
        lines = (torch.stack([start, stop], -2) * 16).int().view(-1, 2, 2).numpy()  # fixed point, 4 bits
        cv2.polylines(canvas, list(lines), False, tone, 1, cv2.LINE_AA, 4)
    return canvas.astype(np.float32) / np.float32(255)
