"""Blurs: each pixel becomes an average of its neighbours. Arguments, result and tables as in `noise`.

The images pass through OpenCV, channels last, in float32. The published code rounds to 8 bits between some
steps (motion blur goes through ImageMagick, glass blur moves bytes): about one grey level away from this.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Generator, Tensor

from ...optional import optional
from .noise import Table

cv2 = optional("cv2")

Array = NDArray[np.float32]

DEFOCUS_BLUR: Table = {  # radius of the disk, sigma of the Gaussian that softens it; pixels
    32: [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)],
    64: [(0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)],
    224: [(3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)],
}


def defocus_blur(image: Tensor, generator: Generator, radius: float, softness: float) -> Tensor:
    """Convolution with a disk, the shape of an open aperture; borders are mirrored."""
    half = 8 if radius <= 8 else int(radius)
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    disk = (x**2 + y**2 <= radius**2).astype(np.float32)
    side = 3 if radius <= 8 else 5
    kernel = cv2.GaussianBlur(disk / disk.sum(), (side, side), softness)
    return channels_first(cv2.filter2D(channels_last(image), -1, kernel))


GLASS_BLUR: Table = {  # sigma of the Gaussian, furthest shift, passes; pixels
    32: [(0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)],
    64: [(0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)],
    224: [(0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)],
}


def glass_blur(image: Tensor, generator: Generator, sigma: float, reach: int, passes: int) -> Tensor:
    """Frosted glass: a Gaussian blur, pixels displaced at random, the same blur again.

    Published quirks that are kept: the pixels are visited from the bottom right to the top left, in place, by
    an exchange that in NumPy only copies (pixel <- neighbour), so that a value can travel far; a shift lies
    in [-reach, reach - 1]; and a margin of about `reach` pixels stays as it is.
    """
    height, width = image.shape[1:]
    pixels = torch.from_numpy(gaussian(channels_last(image), sigma)).flatten(0, 1)  # [H * W, 3]
    for _ in range(passes):
        shifts = torch.randint(-reach, reach, (2, height, width), generator=generator)
        pixels = pixels[displaced(shifts, reach)]
    return channels_first(gaussian(pixels.view(height, width, 3).numpy(), sigma))


def displaced(shifts: Tensor, reach: int) -> Tensor:
    """Where each pixel's value comes from after one in-place pass of copies, flat indices `[H * W]`.

    shifts: `[2, H, W]` integers (down, right); those of rows and columns reach + 1 to size - reach count.

    Pixel i copies pixel j: j's new value if j was visited before i, that is if j > i, else j's old value. So
    the sequential pass is a forest of pointers over 2N nodes, N new values that point and N old ones that are
    roots, and repeated doubling takes every pointer to its root in a logarithmic number of vectorised steps.
    """
    height, width = shifts.shape[1:]
    count = height * width
    index = torch.arange(count).view(height, width)
    inside = (slice(reach + 1, height - reach + 1), slice(reach + 1, width - reach + 1))
    down, right = shifts[0][inside], shifts[1][inside]
    source = index[inside] + down * width + right
    parent = torch.arange(2 * count)
    parent[:count] += count  # a pixel that is not visited keeps its old value
    parent[index[inside]] = torch.where(source > index[inside], source, source + count)
    while not torch.equal(further := parent[parent], parent):
        parent = further
    return parent[:count] - count


MOTION_BLUR: Table = {  # radius, sigma; pixels
    32: [(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)],
    64: [(10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3)],
    224: [(10, 3), (15, 5), (15, 8), (15, 12), (20, 15)],
}


def motion_blur(image: Tensor, generator: Generator, radius: float, sigma: float) -> Tensor:
    """A smear along a direction drawn from -45 to 45 degrees, as of a moving camera."""
    return channels_first(smear(channels_last(image), radius, sigma, uniform(generator, -45, 45)))


ZOOM_BLUR: Table = {  # stop and step of the magnifications, which start at 1
    32: [(1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)],
    64: [(1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)],
    224: [(1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)],
}


def zoom_blur(image: Tensor, generator: Generator, stop: float, step: float) -> Tensor:
    """The mean of the image and its magnifications, as of a camera moving towards the scene.

    The magnifications are NumPy's `arange`, as published: rounding decides whether the stop belongs to them.
    """
    zooms = np.arange(1, stop, step).tolist()
    total = image + sum(magnify(image, zoom) for zoom in zooms)
    return total / (len(zooms) + 1)


GAUSSIAN_BLUR: Table = {  # sigma; pixels
    32: [(0.4,), (0.6,), (0.7,), (0.8,), (1,)],
    64: [(0.5,), (0.75,), (1,), (1.25,), (1.5,)],
    224: [(1,), (2,), (3,), (4,), (6,)],
}


def gaussian_blur(image: Tensor, generator: Generator, sigma: float) -> Tensor:
    """Convolution with a Gaussian; nothing is drawn."""
    return channels_first(gaussian(channels_last(image), sigma))


# What the blurs share with weather and digital.


def channels_last(image: Tensor) -> Array:
    """`[3, H, W]` -> `[H, W, 3]`, contiguous, for OpenCV."""
    return image.permute(1, 2, 0).contiguous().numpy()


def channels_first(array: Array) -> Tensor:
    """`[H, W, 3]` -> `[3, H, W]`, contiguous."""
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()


def uniform(generator: Generator, low: float, high: float) -> float:
    """One number from the uniform distribution."""
    return low + (high - low) * torch.rand((), generator=generator, dtype=torch.float64).item()


def gaussian(array: Array, sigma: float, truncate: float = 4, border: int | None = None) -> Array:
    """Gaussian filter over the two leading axes, ending at `truncate` sigmas as in scikit-image and SciPy.

    border: as OpenCV has it; None repeats the last pixel.
    """
    side = 2 * int(truncate * sigma + 0.5) + 1
    if side == 1:
        return array
    edge = cv2.BORDER_REPLICATE if border is None else border
    return cv2.GaussianBlur(array, (side, side), sigma, borderType=edge)


def smear(array: Array, radius: float, sigma: float, degrees: float) -> Array:
    """ImageMagick's motion blur of `[H, W]` or `[H, W, C]`, which the published code calls.

    Half a Gaussian of 2 * radius + 1 taps, laid from the pixel along the direction (x to the right, y down)
    at whole offsets, halves rounded down; beyond the border the outermost pixel repeats.
    """
    taps = np.arange(2 * int(np.ceil(radius)) + 1)
    weights = np.exp(-(taps**2) / (2 * sigma**2))
    angle = np.deg2rad(degrees)
    dx, dy = (np.ceil(taps * part - 0.5).astype(int) for part in (np.cos(angle), np.sin(angle)))
    kernel = np.zeros((np.ptp(dy) + 1, np.ptp(dx) + 1), np.float32)
    np.add.at(kernel, (dy - dy.min(), dx - dx.min()), weights / weights.sum())
    anchor = (int(-dx.min()), int(-dy.min()))
    return cv2.filter2D(array, -1, kernel, anchor=anchor, borderType=cv2.BORDER_REPLICATE)


def magnify(image: Tensor, zoom: float) -> Tensor:
    """The middle of `[C, H, W]` enlarged to the same size; zoom >= 1, bilinear, corner upon corner.

    The published code crops both axes by the height and so needs squares; here each has its own crop.
    """
    size = image.shape[1:]
    crop = [int(np.ceil(n / zoom)) for n in size]
    enlarged = F.interpolate(
        center(image, crop)[None], [round(n * zoom) for n in crop], mode="bilinear", align_corners=True
    )
    return center(enlarged[0], size)


def center(image: Tensor, size: torch.Size | list[int]) -> Tensor:
    """The middle `[C, *size]` of an image."""
    (top, left), (height, width) = [(n - m) // 2 for n, m in zip(image.shape[1:], size, strict=True)], size
    return image[:, top : top + height, left : left + width]
