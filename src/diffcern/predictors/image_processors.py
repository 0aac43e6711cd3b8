"""What an image processor of transformers does to an image, as options of `Predictor`, and a check that it is so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import torch

from diffcern.errors import DiffcernError
from diffcern.predictors.base import Predictor
from diffcern.resizing import Centre, Fit, Size

# PIL's filters by number. Lanczos becomes bicubic, as it did in transformers' own tensor code before torchvision 0.27.
INTERPOLATIONS = {1: "bicubic", 2: "bilinear", 3: "bicubic"}
WRAP = "wrap the model in diffcern.Predictor with the preprocessing it needs"


class Preprocessing(TypedDict, total=False):
    """The options of `Predictor` that say how an image becomes the model's input."""

    size: Size
    crop: float
    fit: Fit
    interpolation: str
    centre: Centre
    multiple: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def squeezing(side: int, mean: Sequence[float], std: Sequence[float]) -> Any:
    """A CLIPImageProcessor that makes squares of images with bilinear interpolation, as `read_pixels` does."""
    from transformers import CLIPImageProcessor  # slow to import, and only needed here

    size = {"height": side, "width": side}
    return CLIPImageProcessor(size=size, resample=2, do_center_crop=False, image_mean=list(mean), image_std=list(std))


def preprocessing(processor: Any, name: str) -> Preprocessing:
    """Reads an image processor's configuration. Raises DiffcernError for one that resizes by no known rule."""
    options: Preprocessing = {"centre": "down"}
    scale = 255 * processor.rescale_factor if getattr(processor, "do_rescale", True) else 255.0  # of pixels in [0, 1]
    mean: tuple[float, ...] = (0.0,) * 3
    std: tuple[float, ...] = (1.0,) * 3
    if getattr(processor, "do_normalize", False):
        mean, std = _channels(processor.image_mean), _channels(processor.image_std)
    if abs(scale - 1) > 1e-6:  # (scale x - mean) / std
        mean, std = tuple(value / scale for value in mean), tuple(value / scale for value in std)
    options |= {"mean": mean, "std": std}
    if not getattr(processor, "do_resize", False):
        return options
    try:
        return {**options, "interpolation": INTERPOLATIONS[int(processor.resample)], **_geometry(processor)}
    except (AttributeError, KeyError, TypeError) as error:
        raise DiffcernError(
            f"{name} resizes its images by a rule of its own ({type(processor).__name__}); {WRAP}"
        ) from error


def _channels(value: Any) -> tuple[float, ...]:
    """Of each channel; one number is that of all."""
    return (float(value),) * 3 if isinstance(value, int | float) else tuple(value)


def _geometry(processor: Any) -> Preprocessing:
    size = dict(processor.size)
    if getattr(processor, "keep_aspect_ratio", False):
        return {"size": (size["height"], size["width"]), "fit": "ratio", "multiple": processor.ensure_multiple_of}
    if "height" in size:
        resized: tuple[int, int] = (size["height"], size["width"])
        fit: Fit = "squeeze"
    else:
        resized, fit = (size["shortest_edge"],) * 2, "crop"
    fraction = getattr(processor, "crop_pct", None)
    if fraction is not None and fit == "crop":  # ConvNeXt's: small images are cropped, large ones squeezed
        if resized[0] >= 384:
            return {"size": resized, "fit": "squeeze"}
        return {"size": resized, "fit": "crop", "crop": resized[0] / int(resized[0] / fraction)}
    if not getattr(processor, "do_center_crop", False):
        return {"size": resized, "fit": fit}
    kept = dict(processor.crop_size)
    return {"size": (kept["height"], kept["width"]), "fit": fit, "crop": kept["height"] / resized[0]}


def check_preprocessing(predictor: Predictor, processor: Any, name: str) -> None:
    """Raises DiffcernError unless predictor and processor make the same of an image (smooth, so that rounding and
    interpolation do not matter): processors differ in more than their configuration says."""
    rows, columns = torch.meshgrid(torch.linspace(0, 1, 300), torch.linspace(0, 1, 400), indexing="ij")
    image = torch.stack([rows, columns, 1 - rows * columns]).mul(255).round().byte()
    cropped = getattr(processor, "do_center_crop", False)
    options = {"do_center_crop": False} if cropped and predictor.kind.dense else {}
    expected = processor(images=[image.permute(1, 2, 0).numpy()], return_tensors="pt", **options)["pixel_values"]
    actual = predictor.prepare(image[None] / 255)
    difference = (expected - actual) * predictor.std if expected.shape == actual.shape else torch.tensor(torch.inf)
    same = bool(difference.abs().mean() < 0.01)
    if not same:
        raise DiffcernError(
            f"{name} prepares its images with {type(processor).__name__}, which does more than resize, crop and "
            f"normalise (it makes {tuple(expected.shape)} where these make {tuple(actual.shape)}); {WRAP}"
        )
