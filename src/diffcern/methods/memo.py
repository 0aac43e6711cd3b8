"""MEMO (Zhang et al. 2022, arXiv 2110.09506): the predictor should be sure and say the same of all views.

minimise  H(m) = -sum_k m_k log m_k,    m = (1/B) sum_b p(y | a_b(x)),    a_b from AugMix (Hendrycks et al. 2020)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from diffcern.memory import check_memory
from diffcern.methods.base import Count, Method, Optimizer, Weights, call, descend, stop
from diffcern.methods.batch_norm import with_batch_statistics
from diffcern.methods.parameters import adaptable_copy, choose_parameters
from diffcern.predictors import Predictor
from diffcern.rng import drawing_from, generator
from diffcern.types import Cost, Inputs, Prediction

Crops = Literal["none", "resized", "shifted"]


class Memo(Method):
    """One step on one image, then the answer for the image itself; of several images, on their mean entropy.

    Defaults are the paper's for ResNet-50: 64 views, SGD 2.5e-4 without momentum, all parameters. Transformers:
    "adamw" 1e-5 (with torch's weight decay of 0.01, the paper's). source_count: N images that BatchNorm's source
    statistics count for, in both passes N / (N + n) for n images: 16/17 for one, as published, the batch's share
    without a gradient; models without BatchNorm have no use for it. severity: of AugMix's operations, 1 as in MEMO's
    published code (AugMix's own paper: 3).

    crops: crop and mirror each view at random before, as published ("resized" crops of all sizes, as for ImageNet, or
    "shifted" by up to an eighth, as for CIFAR), or "none" where not every label survives that.
    """

    small: ClassVar[Mapping[str, Any]] = {"views": 32, "learning_rate": 1e-3, "crops": "none"}

    def __init__(
        self,
        predictor: Predictor,
        *,
        views: Count = 64,
        severity: Annotated[int, Field(ge=1, le=10)] = 1,
        optimizer: str = "sgd",
        learning_rate: float = 2.5e-4,
        momentum: float = 0.0,
        parameters: str = "all",
        source_count: float = 16.0,
        crops: Crops = "resized",
    ) -> None:
        side = predictor.size if isinstance(predictor.size, int) else max(predictor.size or (1,))
        check_memory(f"{views:,} views of {side} pixels a side", 12 * views * side**2, "give fewer views")
        # The views of an image count as the one image that they are: N B / (N B + n B) = N / (N + n).
        mixed, alone = (
            with_batch_statistics(predictor, count, through=False) for count in (source_count * views, source_count)
        )
        self.for_views, self.predictor = (adaptable_copy(network, parameters) for network in (mixed, alone))
        self.optimizer = Optimizer(optimizer, learning_rate, momentum)
        self.parameters, self.views, self.severity, self.crops = parameters, views, severity, crops

    def init(self) -> Weights:
        return Weights(choose_parameters(self.predictor, self.parameters))

    def step(self, state: Weights, inputs: Inputs, seed: int) -> tuple[Prediction, Weights]:
        leaves, optimizer = self.optimizer.start(state)
        rngs = [generator(seed, "memo", id) for id in inputs.ids]
        seen = self.predictor.resize(inputs.images)
        size = (seen.shape[-2], seen.shape[-1])
        given = inputs.images if self.crops == "resized" else seen  # these are of the whole image
        views = [
            augmix(x, self.views, self.severity, rng, self.crops, size) for x, rng in zip(given, rngs, strict=True)
        ]
        with torch.enable_grad():
            logits = call(self.for_views, leaves, torch.cat(views)).unflatten(0, (len(inputs), self.views))
            losses = marginal_entropy(logits)
            gradients = torch.autograd.grad(losses.mean(), list(leaves.values()), allow_unused=True)
        descend(leaves, optimizer, gradients)
        with torch.no_grad():
            output = call(self.predictor, leaves, seen)
        trace = [[loss] for loss in losses.tolist()]
        return Prediction(output, [Cost()] * len(inputs), trace), stop(leaves, optimizer)


def marginal_entropy(logits: Tensor) -> Tensor:
    """H of the mean softmax over the views: `[n, B, K]` -> `[n]`."""
    log_mean = logits.float().log_softmax(-1).logsumexp(1) - math.log(logits.shape[1])
    return -(log_mean.exp() * log_mean).sum(-1)


def augmix(
    image: Tensor,
    views: int,
    severity: int,
    rng: torch.Generator,
    crops: Crops = "none",
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Views `[views, 3, H, W]` of an image `[3, H, W]` in [0, 1], on its device (arXiv 1912.02781, section 3).

    crops: see `Memo`; size: of the views, by default the image's. The operations are none of ImageNet-C's
    corruptions (rotate, shear, translate, posterize, solarize, autocontrast, equalize), on 8-bit images.
    """
    from torchvision.transforms.v2 import AugMix, Compose, RandomCrop, RandomHorizontalFlip, RandomResizedCrop

    height, width = size or (image.shape[-2], image.shape[-1])
    before: dict[Crops, list[nn.Module]] = {
        "none": [],
        "resized": [RandomResizedCrop((height, width), antialias=True), RandomHorizontalFlip()],
        "shifted": [RandomCrop((height, width), padding=(width // 8, height // 8)), RandomHorizontalFlip()],
    }
    transform = Compose([*before[crops], AugMix(severity=severity, all_ops=False)])
    pixels = (image * 255).round().to(torch.uint8).cpu()
    with drawing_from(rng):
        mixed = torch.stack([transform(pixels) for _ in range(views)])
    return mixed.to(image.device).float() / 255
