"""A predictor: any vision model, with the resize and normalisation it was trained with and the names of its labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffcern.errors import UsageError

Kind = Literal["classification", "segmentation", "depth"]
Fit = Literal["squeeze", "crop", "ratio"]
Centre = Literal["even", "down"]
Size = int | tuple[int, int]  # (height, width), one number for a square


class Predictor(nn.Module):
    """Wraps a model so that it takes images `[B, 3, H, W]` in [0, 1] of any size.

    task says what comes out: "classification" logits `[B, K]`, "segmentation" logits `[B, K, H, W]`, "depth" a map
    `[B, H, W]`, in metres if `metric`, else inverse and relative; the last two in the size of the images that were
    given (bilinear).
    class_names: K names, none for depth. class_ids: their WordNet ids ("n01440764") where known, which stay apart
    where names collide.

    size, crop, fit, interpolation, centre, multiple: how images are resized and cropped, see `resize_and_crop` and
    `fitted_shape`; size None takes them as they are. Classifiers take images of exactly the size as they are too
    (ImageNet-C's come cropped); dense tasks see the whole image, uncropped. Then (x - mean) / std. Everything is
    differentiable. Raises UsageError when there are not as many ids as names, and for sizes, means and
    deviations that no image could be prepared with.
    """

    mean: Tensor
    std: Tensor
    kept: Tensor | None

    def __init__(
        self,
        model: nn.Module,
        class_names: Sequence[str],
        *,
        size: Size | None = None,
        crop: float = 1.0,
        fit: Fit | None = None,
        interpolation: str = "bilinear",
        centre: Centre = "even",
        multiple: int = 1,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        class_ids: Sequence[str] | None = None,
        task: Kind = "classification",
        metric: bool = False,
    ) -> None:
        super().__init__()
        if class_ids is not None and len(class_ids) != len(class_names):
            raise UsageError(f"class_ids are as many as class_names, not {len(class_ids)} and {len(class_names)}")
        _check_preparation(size, crop, mean, std)
        self.model = model
        self.class_names = tuple(class_names)
        self.class_ids = None if class_ids is None else tuple(class_ids)
        self.task = task
        self.metric = metric
        self.size = size
        self.crop = crop
        self.fit = fit
        self.interpolation = interpolation
        self.centre = centre
        self.multiple = multiple
        self.register_buffer("kept", None, persistent=False)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)
        self.eval()

    def restrict(self, names: Sequence[str]) -> Predictor:
        """Answers with these classes only, in this order; in place, and the logits of the others are not looked at.

        Raises UsageError that names what the predictor does not know, or stands twice.
        """
        unknown = [name for name in names if name not in self.class_names]
        if unknown or len(set(names)) < len(names) or not names:
            problem = ", ".join(unknown[:6]) or "none, or one twice"
            known = ", ".join([*self.class_names[:6], *(["..."] if len(self.class_names) > 6 else [])])
            raise UsageError(f"asked for classes: {problem}; the predictor knows {len(self.class_names)}: {known}")
        if tuple(names) != self.class_names:
            index = torch.tensor([self.class_names.index(name) for name in names], device=self.mean.device)
            self.kept = index if self.kept is None else self.kept[index]
            self.class_ids = None if self.class_ids is None else tuple(self.class_ids[i] for i in index.tolist())
            self.class_names = tuple(names)
        return self

    def resize(self, images: Tensor) -> Tensor:
        """The part of the preparation that changes the shape: `[B, 3, height, width]` in [0, 1]."""
        if self.size is None:
            return images
        if self.task == "classification":
            return resize_and_crop(images, self.size, self.crop, self.fit, self.interpolation, self.centre)
        shape = fitted_shape(images.shape[-2:], _pair(self.size), self.fit or "squeeze", self.multiple)
        return interpolate(images, shape, self.interpolation)

    def prepare(self, images: Tensor) -> Tensor:
        """Resize, centre crop and normalise: what the model sees."""
        return (self.resize(images) - self.mean) / self.std

    def forward(self, images: Tensor) -> Tensor:
        output = self.model(self.prepare(images))
        if self.kept is not None:
            output = output[:, self.kept]
        if self.task == "classification":
            return output
        maps = output if output.ndim == 4 else output[:, None]
        return F.interpolate(maps, images.shape[-2:], mode="bilinear", align_corners=False).reshape(
            *output.shape[:-2], *images.shape[-2:]
        )


class Output(nn.Module):
    """A model that answers with a dictionary, reduced to one of its tensors."""

    def __init__(self, model: nn.Module, key: str) -> None:
        super().__init__()
        self.model = model
        self.key = key

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)[self.key]


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
    height, width = _pair(size)
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


def _check_preparation(size: Size | None, crop: float, mean: Sequence[float], std: Sequence[float]) -> None:
    """Raises UsageError for what would fail, or give NaN, once an image is prepared."""
    if not all(len(values) in (1, 3) and all(map(math.isfinite, values)) for values in (mean, std)) or min(std) <= 0:
        raise UsageError(f"mean and std are of 3 channels, finite, std above 0, not {list(mean)} and {list(std)}")
    sides = () if size is None else _pair(size)
    if len(sides) not in (0, 2) or any(side < 1 for side in sides) or not 0 < crop < math.inf:
        raise UsageError(f"size is a side or (height, width) above 0, crop a share above 0, not {size} and {crop}")


def _pair(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size
