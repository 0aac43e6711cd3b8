"""DeYO (Lee et al. 2024, arXiv 2403.07366): lower the entropy of answers that hang on the shape of what is shown.

minimise  1/|S| sum_{x in S} (exp(E0 - E(x)) + exp(PLPD(x))) E(x)     over norms' affine

PLPD(x) = p_y(x) - p_y(x'),    y = argmax p(x),    x' = x with its 4 x 4 patches shuffled
S = {x: E(x) < 0.5 ln K and PLPD(x) > 0.3},    E0 = 0.4 ln K
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from diffcern.errors import UsageError
from diffcern.methods.base import Method, Optimizer, Weights, call, descend, stop
from diffcern.methods.batch_norm import Statistics, with_statistics
from diffcern.methods.entropy import Share, average_of, entropy, largest
from diffcern.methods.parameters import adaptable_copy, choose_parameters
from diffcern.predictors import Predictor
from diffcern.resizing import interpolate
from diffcern.rng import generator
from diffcern.types import Cost, Inputs, Prediction


class DeYO(Method):
    """Online by default habit; the answer is the logits from before the step, as published.

    Defaults are the paper's for ResNet-50 on ImageNet-C: batch 64, SGD 2.5e-4 with momentum 0.9, sure 0.5 (the largest
    entropy over ln K), centre 0.4 (E0 over ln K), drop 0.3 (the smallest PLPD; 0.2 where classes come one after the
    other or one image at a time), patches 4 a side. statistics: see `Tent`; they are those of the shuffled images where
    these are asked about. Raises UsageError in the step for images with fewer pixels a side than patches.
    """

    needs_batch = True
    small: ClassVar[Mapping[str, Any]] = {"optimizer": "adam", "learning_rate": 1e-2}

    def __init__(
        self,
        predictor: Predictor,
        *,
        sure: Share = 0.5,
        centre: Share = 0.4,
        drop: Annotated[float, Field(ge=-1, le=1)] = 0.3,
        patches: Annotated[int, Field(ge=2)] = 4,
        optimizer: str = "sgd",
        learning_rate: float = 2.5e-4,
        momentum: float = 0.9,
        statistics: Statistics = "batch",
    ) -> None:
        self.predictor = adaptable_copy(with_statistics(predictor, statistics), "norm")
        self.optimizer = Optimizer(optimizer, learning_rate, momentum)
        self.sure, self.centre, self.drop, self.patches = sure, centre, drop, patches
        self.needs_batch = statistics == "batch"

    def init(self) -> Weights:
        return Weights(choose_parameters(self.predictor, "norm"))

    def step(self, state: Weights, inputs: Inputs, seed: int) -> tuple[Prediction, Weights]:
        leaves, optimizer = self.optimizer.start(state)
        seen = self.predictor.resize(inputs.images)
        rngs = [generator(seed, "deyo", id) for id in inputs.ids]
        destroyed = torch.stack([shuffled(x, self.patches, rng) for x, rng in zip(seen, rngs, strict=True)])
        with torch.no_grad():
            without = call(self.predictor, leaves, destroyed)
        with torch.enable_grad():
            logits = call(self.predictor, leaves, seen)
            weights = weigh(logits.detach(), without, self.sure, self.centre, self.drop)
            losses, chosen = weights * entropy(logits), weights > 0
            gradients = torch.autograd.grad(average_of(losses, chosen), list(leaves.values()))
        trace = losses.detach()[:, None].tolist()
        answer = Prediction(logits.detach(), [Cost()] * len(inputs), trace)
        if not chosen.any():
            return answer, state
        descend(leaves, optimizer, gradients)
        return answer, stop(leaves, optimizer)


def weigh(logits: Tensor, without: Tensor, sure: float, centre: float, drop: float) -> Tensor:
    """exp(E0 - E) + exp(PLPD) of the images in S, 0 of the others, `[B]`; of logits `[B, K]` with and without shape."""
    uncertain, bound = entropy(logits), largest(logits)
    answer = logits.argmax(1, keepdim=True)
    lost = (logits.softmax(1) - without.softmax(1)).gather(1, answer)[:, 0]
    chosen = (uncertain < sure * bound) & (lost > drop)
    return chosen * (torch.exp(centre * bound - uncertain) + torch.exp(lost))


def shuffled(image: Tensor, patches: int, rng: torch.Generator) -> Tensor:
    """The image `[3, H, W]` with its patches x patches pieces in another order; resized there and back where a side is
    no multiple of patches. Raises UsageError for fewer pixels a side than that."""
    height, width = image.shape[-2:]
    if min(height, width) < patches:
        raise UsageError(f"{patches} patches a side do not fit into {height} x {width} pixels: set patches lower")
    rows, columns = height // patches, width // patches
    fitted = interpolate(image[None], (rows * patches, columns * patches), "bilinear")
    pieces = fitted.view(3, patches, rows, patches, columns).permute(1, 3, 0, 2, 4).flatten(0, 1)
    order = torch.randperm(patches**2, generator=rng).to(image.device)
    mixed = pieces[order].unflatten(0, (patches, patches)).permute(2, 0, 3, 1, 4).reshape(fitted.shape)
    return interpolate(mixed, (height, width), "bilinear")[0]
