"""The corruptions by name, and the one verb that applies them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import DiffcernError, UsageError, unknown
from ...resizing import resize_and_crop
from . import blur, digital, noise, weather

SIZES = (32, 64, 224)  # image sizes that have published parameters
RESIZED = 256  # short side of a photo before ImageNet-C's crop
SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Corruption:
    """A corruption: what it does, and with which parameters.

    apply: `(image, generator, *parameters)` -> image, not yet clipped. parameters: for each of `SIZES`, one
    row for each severity.
    """

    apply: Callable[..., Tensor]
    parameters: noise.Table


CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": Corruption(noise.gaussian_noise, noise.GAUSSIAN_NOISE),
    "shot_noise": Corruption(noise.shot_noise, noise.SHOT_NOISE),
    "impulse_noise": Corruption(noise.impulse_noise, noise.IMPULSE_NOISE),
    "defocus_blur": Corruption(blur.defocus_blur, blur.DEFOCUS_BLUR),
    "glass_blur": Corruption(blur.glass_blur, blur.GLASS_BLUR),
    "motion_blur": Corruption(blur.motion_blur, blur.MOTION_BLUR),
    "zoom_blur": Corruption(blur.zoom_blur, blur.ZOOM_BLUR),
    "snow": Corruption(weather.snow, weather.SNOW),
    "frost": Corruption(weather.frost, weather.FROST),
    "fog": Corruption(weather.fog, weather.FOG),
    "brightness": Corruption(digital.brightness, digital.BRIGHTNESS),
    "contrast": Corruption(digital.contrast, digital.CONTRAST),
    "elastic_transform": Corruption(digital.elastic_transform, digital.ELASTIC_TRANSFORM),
    "pixelate": Corruption(digital.pixelate, digital.PIXELATE),
    "jpeg_compression": Corruption(digital.jpeg_compression, digital.JPEG_COMPRESSION),
    "speckle_noise": Corruption(noise.speckle_noise, noise.SPECKLE_NOISE),
    "gaussian_blur": Corruption(blur.gaussian_blur, blur.GAUSSIAN_BLUR),
    "spatter": Corruption(weather.spatter, weather.SPATTER),
    "saturate": Corruption(digital.saturate, digital.SATURATE),
}
COMMON: tuple[str, ...] = tuple(CORRUPTIONS)[:15]  # those that count in ImageNet-C and CIFAR-10-C
EXTRA: tuple[str, ...] = tuple(CORRUPTIONS)[15:]  # those set aside there for validation


def corrupt(
    image: Tensor,
    name: str,
    severity: int,
    generator: torch.Generator,
    size: int | None = None,
    *,
    quantize: bool = False,
) -> Tensor:
    """One image under one corruption of Hendrycks and Dietterich, ICLR 2019 (arXiv:1903.12261).

    image: `[3, H, W]` float32 in [0, 1], H and W at least 8; it stays as it is. The result is alike, clipped.
    name: one of `CORRUPTIONS`; severity: 1 to 5.
    generator: on the CPU; the only source of randomness: the image and its state determine the result.
    size: whose published parameters: CIFAR-10-C's (32), Tiny-ImageNet-C's (64) or ImageNet-C's (224). By
    default that follows the shorter side: up to 48, up to 112, above. Lengths in them are pixels and do not
    scale with the image, so resize and crop first, as the published sets did (`imagenet_c_view`).
    quantize: round the result to the nearest of 256 levels, as a lossless file would hold it. (The published
    sets were truncated to the level below; the 64 and 224 ones were then saved as JPEG of quality 85.)

    Raises UsageError for an unknown name, severity or size, DiffcernError for any other kind of image.
    """
    if name not in CORRUPTIONS:
        raise unknown("corruption", name, CORRUPTIONS)
    if severity not in SEVERITIES:
        raise UsageError(f"severity {severity!r} of {name} does not exist. Known: {listed(SEVERITIES)}.")
    if size is not None and size not in SIZES:
        raise UsageError(f"no corruption parameters for image size {size!r}. Known: {listed(SIZES)}.")
    check(image)
    corruption = CORRUPTIONS[name]
    row = corruption.parameters[size or table_size(image)][severity - 1]
    result = corruption.apply(image.detach().cpu(), generator, *row).clamp(0, 1)
    return ((result * 255).round() / 255 if quantize else result).to(image.device)


def imagenet_c_view(image: Tensor) -> Tensor:
    """What ImageNet-C's authors corrupted of a photo `[3, H, W]`: the short side resized to 256, the central 224 x 224.

    Lengths in the corruptions are pixels of that picture: noise of a larger one is averaged away when a predictor
    shrinks it. Images with a side below 224, and those of 224 x 224 (ImageNet-C's own are cropped already), stay.
    """
    shape = image.shape[-2:]
    if min(shape) < SIZES[-1] or tuple(shape) == (SIZES[-1], SIZES[-1]):
        return image
    return resize_and_crop(image[None], SIZES[-1], SIZES[-1] / RESIZED)[0].clamp(0, 1)  # but for rounding it is


def table_size(image: Tensor) -> int:
    """The published size whose parameters suit `[3, H, W]`: the nearest to its shorter side, roughly."""
    side = min(image.shape[1:])
    return 32 if side <= 48 else 64 if side <= 112 else 224


def check(image: Tensor) -> None:
    """Raises DiffcernError unless the image is `[3, H, W]` float32 in [0, 1] with sides of at least 8."""
    if image.ndim != 3 or image.shape[0] != 3 or min(image.shape[1:]) < 8:
        raise DiffcernError(
            f"a corruption takes one image [3, H, W] with sides of at least 8, not {list(image.shape)}."
        )
    if image.dtype != torch.float32:
        raise DiffcernError(f"a corruption takes a float32 image in [0, 1], not {image.dtype}.")
    low, high = (value.item() for value in image.aminmax())
    if not (low >= 0 and high <= 1):  # also true of NaN
        raise DiffcernError(f"a corruption takes values in [0, 1], not from {low:.4g} to {high:.4g}.")


def listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))
