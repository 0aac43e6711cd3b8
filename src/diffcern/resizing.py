"""How an image becomes what a model sees: the part that is looked at, and the size that this is brought to.

The view of an image is one crop in its own pixels, the same for predictor and prior; each then resizes it for itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

Fit = Literal["squeeze", "crop", "ratio"]
Centre = Literal["even", "down"]
Size = int | tuple[int, int]  # (height, width), one number for a square
View = Literal["centre", "whole"]  # what a prior is shown where no predictor says what it looks at
Images = Float[Tensor, "batch 3 rows columns"] | Sequence[Float[Tensor, "3 _ _"]]  # or of any sizes; in [0, 1]


def centre_view(image: Tensor, ratio: float | None = 1.0, share: float = 1.0) -> Tensor:
    """The centre of an image `[..., H, W]`: its largest part of that ratio (width / height; None: of the image's own),
    and of its sides the `share`."""
    height, width = image.shape[-2:]
    wide = height * (ratio or width / height)
    sides = (height, wide) if wide <= width else (width / ratio if ratio else height, width)
    rows, columns = (max(1, round(side * share)) for side in sides)
    top, left = (round((have - want) / 2) for have, want in ((height, rows), (width, columns)))
    return image[..., top : top + rows, left : left + columns]


def views_of(images: Images, view: View) -> Images:
    """The "centre" square of each image, or the "whole" image as it is."""
    if view == "whole":
        return images
    return centre_view(images) if isinstance(images, Tensor) else [centre_view(image) for image in images]


def resize_and_crop(
    images: Tensor,
    size: Size,
    crop: float = 1.0,
    fit: Fit | None = None,
    interpolation: str = "bilinear",
    centre: Centre = "even",
) -> Tensor:
    """Resizes to size / crop as `fit` says, then keeps the centre: crop is the fraction of a side that stays.

    fit None is "squeeze" where crop is 1, "crop" where it is less (see `fitted_shape`). centre: an odd margin's half is
    rounded to "even" (torchvision, timm) or "down" (transformers). Images of the size already are returned as they are.
    """
    height, width = pair(size)
    if images.shape[-2:] == (height, width):
        return images
    fit = fit or ("squeeze" if crop >= 1 else "crop")
    target = (round(height / crop), round(width / crop))
    images = interpolate(images, fitted_shape(images.shape[-2:], target, fit), interpolation)
    margins = [(have - want) / 2 for have, want in zip(images.shape[-2:], (height, width), strict=True)]
    top, left = (round(margin) if centre == "even" else int(margin) for margin in margins)
    return images[..., top : top + height, left : left + width]


def interpolate(images: Tensor, shape: tuple[int, int], interpolation: str) -> Tensor:
    """Antialiased "bilinear" or "bicubic"; the latter's overshoot is cut to [0, 1], as it is in 8-bit images."""
    if images.shape[-2:] == shape:
        return images
    resized = F.interpolate(images, shape, mode=interpolation, antialias=True, align_corners=False)
    return resized.clamp(0, 1) if interpolation == "bicubic" else resized


def fitted_shape(shape: Sequence[int], target: tuple[int, int], fit: Fit, multiple: int = 1) -> tuple[int, int]:
    """The (height, width) that an image of `shape` is resized to.

    "squeeze": `target` itself. "crop": the ratio kept, both sides at least `target` and one equal to it, as
    torchvision's `Resize(int)`. "ratio": the ratio kept, one side equal to `target`, whichever scales the image less,
    and both rounded to a multiple, as DPT (Ranftl et al. 2021, arXiv 2103.13413).
    """
    if fit == "squeeze":
        return target
    if fit == "crop":
        if target[0] * shape[1] >= target[1] * shape[0]:
            return target[0], target[0] * shape[1] // shape[0]
        return target[1] * shape[0] // shape[1], target[1]
    scale = min((target[0] / shape[0], target[1] / shape[1]), key=lambda scale: abs(1 - scale))
    height, width = (max(1, round(side * scale / multiple)) * multiple for side in shape)
    return height, width


def pair(size: Size) -> tuple[int, int]:
    """(height, width)."""
    return (size, size) if isinstance(size, int) else size
