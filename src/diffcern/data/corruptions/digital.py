"""Digital: what an image pipeline does to a picture. Arguments, result and tables as in `noise`."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Generator, Tensor

from ...optional import optional
from .blur import channels_first, channels_last, gaussian
from .noise import Table

cv2 = optional("cv2")

BRIGHTNESS: Table = {  # added to the value of HSV
    32: [(0.05,), (0.1,), (0.15,), (0.2,), (0.3,)],
    64: [(0.1,), (0.2,), (0.3,), (0.4,), (0.5,)],
    224: [(0.1,), (0.2,), (0.3,), (0.4,), (0.5,)],
}


def brightness(image: Tensor, generator: Generator, shift: float) -> Tensor:
    """Raises V of HSV (the largest channel, at most to 1), keeping hue and saturation."""
    value = image.amax(0, keepdim=True)
    brighter = (value + shift).clamp(max=1)
    return torch.where(value > 0, image * brighter / value, brighter)  # black has no hue and becomes grey


CONTRAST: Table = {  # factor
    32: [(0.75,), (0.5,), (0.4,), (0.3,), (0.15,)],
    64: [(0.4,), (0.3,), (0.2,), (0.1,), (0.05,)],
    224: [(0.4,), (0.3,), (0.2,), (0.1,), (0.05,)],
}


def contrast(image: Tensor, generator: Generator, factor: float) -> Tensor:
    """Draws every value towards the mean of its channel."""
    mean = image.mean((1, 2), keepdim=True)
    return mean + factor * (image - mean)


SATURATE: Table = {  # factor and shift of the saturation of HSV
    32: [(0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)],
    64: [(0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (30, 0.2)],
    224: [(0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)],
}


def saturate(image: Tensor, generator: Generator, factor: float, shift: float) -> Tensor:
    """Changes S of HSV, keeping hue and value: towards grey at severity 1 and 2, gaudy from 3 on.

    As published: grey pixels have hue 0 in scikit-image, so a shift (severity 4 and 5) tints them red.
    """
    value = image.amax(0, keepdim=True)
    chroma = value - image.amin(0, keepdim=True)
    red = torch.tensor([0.0, 1.0, 1.0])[:, None, None]
    # How far each channel lies below the largest one: 0 for that one, 1 for the smallest.
    fall = torch.where(chroma > 0, (value - image) / chroma, red)
    saturation = torch.where(value > 0, chroma / value, 0)
    return value * (1 - (saturation * factor + shift).clamp(0, 1) * fall)


ELASTIC_TRANSFORM: Table = {  # strength, sigma of the local shifts; furthest shift of an affine corner
    32: [(0, 0, 2.56), (1.6, 6.4, 2.24), (2.56, 1.92, 1.92), (3.2, 1.28, 1.6), (3.2, 0.96, 0.96)],
    64: [(0, 0, 5.12), (3.2, 19.2, 3.84), (6.4, 5.12, 3.84), (6.4, 1.92, 1.92), (10.24, 1.92, 1.28)],
    224: [  # the published factors times 244, a slip of the published code for 224
        (488, 170.8, 24.4),
        (488, 19.52, 48.8),
        (12.2, 2.44, 4.88),
        (17.08, 2.44, 4.88),
        (29.28, 2.44, 4.88),
    ],
}


def elastic_transform(image: Tensor, generator: Generator, strength: float, sigma: float, corner: float) -> Tensor:
    """A random affine map, then a smooth random shift of every pixel, both with mirrored borders.

    The affine map moves three corners of the central square of two thirds of the shorter side.
    """
    height, width = image.shape[1:]
    middle, arm = np.array([width // 2, height // 2]), min(height, width) // 3
    corners = (middle + arm * np.array([[1, 1], [1, -1], [-1, -1]])).astype(np.float32)
    shift = corner * (2 * torch.rand((3, 2), generator=generator) - 1).numpy()
    affine = cv2.getAffineTransform(corners, corners + shift)
    moved = cv2.warpAffine(channels_last(image), affine, (width, height), borderMode=cv2.BORDER_REFLECT_101)

    def wander() -> Tensor:
        noise = 2 * torch.rand((height, width), generator=generator) - 1
        return strength * torch.from_numpy(gaussian(noise.numpy(), sigma, 3, cv2.BORDER_REFLECT))

    y, x = torch.arange(height)[:, None] + wander(), torch.arange(width) + wander()
    grid = torch.stack([(2 * x + 1) / width, (2 * y + 1) / height], -1) - 1  # pixel centres in [-1, 1]
    return F.grid_sample(channels_first(moved)[None], grid[None], padding_mode="reflection", align_corners=False)[0]


PIXELATE: Table = {  # size of the small image relative to the original
    32: [(0.95,), (0.9,), (0.85,), (0.75,), (0.65,)],
    64: [(0.9,), (0.8,), (0.7,), (0.6,), (0.5,)],
    224: [(0.6,), (0.5,), (0.4,), (0.3,), (0.25,)],
}


def pixelate(image: Tensor, generator: Generator, ratio: float) -> Tensor:
    """Down and up again with Pillow's box filter; in float32, where the published code rounds to 8 bits."""
    height, width = image.shape[1:]
    size = (int(width * ratio), int(height * ratio))

    def boxed(channel: Tensor) -> Tensor:
        small = Image.fromarray(channel.numpy()).resize(size, Image.Resampling.BOX)
        return torch.from_numpy(np.array(small.resize((width, height), Image.Resampling.BOX)))

    return torch.stack([boxed(channel) for channel in image.contiguous()])


JPEG_COMPRESSION: Table = {  # quality of Pillow's encoder
    32: [(80,), (65,), (58,), (50,), (40,)],
    64: [(65,), (58,), (50,), (40,), (25,)],
    224: [(25,), (18,), (15,), (10,), (7,)],
}


def jpeg_compression(image: Tensor, generator: Generator, quality: int) -> Tensor:
    """A round trip through JPEG (Pillow's default 4:2:0 chroma), which takes and gives 8 bits."""
    file = BytesIO()
    pixels = (channels_last(image) * 255).round().astype(np.uint8)
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return channels_first(np.asarray(Image.open(file), np.float32) / np.float32(255))
