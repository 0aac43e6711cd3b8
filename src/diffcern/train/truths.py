"""What a predictor is trained towards: the class of an image, of every pixel, or their depth by

| log d - log d_hat |    over the pixels whose depth is known.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from diffcern.data.base import VOID
from diffcern.errors import UsageError
from diffcern.predictors.base import Kind
from diffcern.tasks.depth import NEAREST
from diffcern.train.images import augmentation_names

TRUTHS: dict[Kind, Literal["label", "mask", "depth"]] = {
    "classification": "label",
    "segmentation": "mask",
    "depth": "depth",
}


def loss_of(output: Tensor, truth: Tensor, task: Kind, label_smoothing: float = 0.0) -> Tensor:
    """The mean over images, or over the pixels whose truth is known; maps are compared in the size of the truth."""
    if task == "classification":
        return F.cross_entropy(output, truth, label_smoothing=label_smoothing)
    maps = output if output.ndim == 4 else output[:, None]
    maps = F.interpolate(maps, truth.shape[-2:], mode="bilinear", align_corners=False)
    if task == "segmentation":
        return F.cross_entropy(maps, truth, ignore_index=VOID, label_smoothing=label_smoothing)
    known = truth > 0
    metres = maps[:, 0][known].clamp(min=NEAREST)  # a network of another library may answer 0
    return (metres.log() - truth[known].log()).abs().mean()


def mirrored(images: Tensor, truth: Tensor, flip: bool, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images `[B, 3, H, W]` and their maps `[B, h, w]`, half of them left-right where `flip`."""
    turned = (torch.rand(len(images), generator=rng) < 0.5).to(images.device) & flip
    return (
        torch.where(turned[:, None, None, None], images.flip(-1), images),
        torch.where(turned[:, None, None], truth.flip(-1), truth),
    )


def mirrors(augmentation: str) -> bool:
    """Whether the named augmentations mirror images with their maps. Raises UsageError for any other one."""
    names = augmentation_names(augmentation)
    if set(names) - {"flip"}:
        raise UsageError("maps are trained with --augment flip or none: others would blur them")
    return "flip" in names
