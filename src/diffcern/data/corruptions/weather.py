"""Weather: something lies between the camera and the scene. Arguments, result and tables as in `noise`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Generator, Tensor

from ...optional import optional
from .blur import Array, gaussian, magnify, smear, uniform
from .noise import Table
from .texture import ice, plasma

cv2 = optional("cv2")

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, OpenCV's grey

SNOW: Table = {  # flakes: mean, std, magnification, threshold; smear: radius, sigma; weight of the image
    32: [
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ],
    64: [
        (0.1, 0.2, 1, 0.6, 8, 3, 0.8),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.8),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.7),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.65),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.6),
    ],
    224: [
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ],
}


def snow(
    image: Tensor,
    generator: Generator,
    mean: float,
    std: float,
    zoom: float,
    threshold: float,
    radius: float,
    sigma: float,
    keep: float,
) -> Tensor:
    """A whitened image under two layers of falling flakes.

    The flakes are magnified noise above a threshold, smeared within 45 degrees of the vertical; the second
    layer is the first one turned by 180 degrees. The scene is mixed with its brightened grey version.
    """
    layer = magnify(mean + std * torch.randn((1, *image.shape[1:]), generator=generator), zoom)[0]
    flakes = torch.where(layer < threshold, 0.0, layer).clamp(0, 1).numpy()
    falling = torch.from_numpy(smear(flakes, radius, sigma, uniform(generator, -135, -45)))
    grey = torch.einsum("c,chw->hw", torch.tensor(LUMA), image)
    scene = keep * image + (1 - keep) * torch.maximum(image, 1.5 * grey + 0.5)
    return scene + falling + falling.flip(0, 1)


FROST: Table = {  # weight of the image, weight of the frost, reduction of the frost
    32: [(1, 0.2, 0.2), (1, 0.3, 0.2), (0.9, 0.4, 0.2), (0.85, 0.4, 0.2), (0.75, 0.45, 0.2)],
    64: [(1, 0.3, 0.3), (0.9, 0.4, 0.3), (0.8, 0.45, 0.3), (0.75, 0.5, 0.3), (0.7, 0.55, 0.3)],
    224: [(1, 0.4, 1), (0.8, 0.6, 1), (0.7, 0.7, 1), (0.65, 0.7, 1), (0.6, 0.75, 1)],
}


def frost(image: Tensor, generator: Generator, image_weight: float, frost_weight: float, reduction: float) -> Tensor:
    """Ice crystals on the lens, added with the published weights.

    Deviation: the published code adds a random crop of one of five photographs by third parties, which
    diffcern does not ship. Here the ice is drawn (`ice`) and milder: severity 5 is about published 1 to 2.
    """
    height, width = image.shape[1:]
    return image_weight * image + frost_weight * ice(height, width, reduction, generator)


FOG: Table = {  # thickness, decay of the roughness from one scale to the next finer one
    32: [(0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)],
    64: [(0.4, 3), (0.7, 3), (1, 2.5), (1.5, 2), (2, 1.75)],
    224: [(1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)],
}


def fog(image: Tensor, generator: Generator, thickness: float, decay: float) -> Tensor:
    """Banks of fog from a plasma fractal; the result is scaled back to the image's own maximum, as published.

    The fractal is cut from a square with sides 32, 64 and 256 at the published sizes.
    """
    height, width = image.shape[1:]
    banks = plasma(height, width, decay, generator)
    brightest = image.max()
    return (image + thickness * banks) * brightest / (brightest + thickness)


SPATTER: Table = {  # drops: mean, std, sigma, threshold; opacity of water or sigma of mud; 0 water, 1 mud
    32: [
        (0.62, 0.1, 0.7, 0.7, 0.5, 0),
        (0.65, 0.1, 0.8, 0.7, 0.5, 0),
        (0.65, 0.3, 1, 0.69, 0.5, 0),
        (0.65, 0.1, 0.7, 0.69, 0.6, 1),
        (0.65, 0.1, 0.5, 0.68, 0.6, 1),
    ],
    64: [
        (0.62, 0.1, 0.7, 0.7, 0.6, 0),
        (0.65, 0.1, 0.8, 0.7, 0.6, 0),
        (0.65, 0.3, 1, 0.69, 0.6, 0),
        (0.65, 0.1, 0.7, 0.68, 0.6, 1),
        (0.65, 0.1, 0.5, 0.67, 0.6, 1),
    ],
    224: [
        (0.65, 0.3, 4, 0.69, 0.6, 0),
        (0.65, 0.3, 3, 0.68, 0.6, 0),
        (0.65, 0.3, 2, 0.68, 0.5, 0),
        (0.65, 0.3, 1, 0.65, 1.5, 1),
        (0.67, 0.4, 1, 0.65, 1.5, 1),
    ],
}
WATER = (175 / 255, 238 / 255, 238 / 255)  # pale turquoise
MUD = (63 / 255, 42 / 255, 20 / 255)


def spatter(
    image: Tensor,
    generator: Generator,
    mean: float,
    std: float,
    sigma: float,
    threshold: float,
    amount: float,
    mud: int,
) -> Tensor:
    """Drops on the lens: water, which adds light (severity 1 to 3), or mud, which hides the scene (4, 5)."""
    noise = mean + std * torch.randn(image.shape[1:], generator=generator)
    drops = gaussian(noise.numpy(), sigma)
    if mud:
        cover = gaussian((drops > threshold).astype(np.float32), amount)
        opacity = torch.from_numpy(np.where(cover < 0.8, np.float32(0), cover))
        return image * (1 - opacity) + opacity * torch.tensor(MUD)[:, None, None]
    light = gloss(np.where(drops < threshold, np.float32(0), drops))
    return image + amount * torch.from_numpy(light) * torch.tensor(WATER)[:, None, None]


def gloss(drops: Array) -> Array:
    """How much light drops of that thickness `[H, W]` reflect, at most 1: most at their embossed edges."""
    thickness = (drops.clip(0, 1) * 255).astype(np.uint8)
    distance = cv2.distanceTransform(255 - cv2.Canny(thickness, 50, 150), cv2.DIST_L2, 5)
    profile = cv2.equalizeHist(cv2.blur(np.minimum(distance, 20), (3, 3)).astype(np.uint8))
    emboss = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], np.float32)
    shine = cv2.blur(cv2.filter2D(profile, cv2.CV_8U, emboss), (3, 3))
    light = thickness * shine.astype(np.float32)
    return light / max(light.max(), 1)  # without drops (a tiny image) the published code divides 0 by 0
