"""ROID (Marsden et al. 2024, arXiv 2306.00650): likelihood ratios of sure, unusual answers, near the source's weights.

minimise  1/B sum_x w(x) (SLR(p(x)) + SCE(p(x), p(x~)))     over norms' affine; x~ an augmented view of x

SLR(p) = -sum_k p_k log(p_k / (1 - p_k)),    SCE(p, q) = -1/2 (sum_k p_k log q_k + sum_k q_k log p_k)
w = exp(u(1 - cos(p, m)) u(-H(p)) / tau), 0 where the first u is below its mean;    u: the batch's range becomes [0, 1]
m <- 0.9 m + 0.1 mean_x p(x), at first 1/K;    after each step  theta <- 0.99 theta + 0.01 theta_source
answer: p_k(x) pi_k,  pi = (q + g) / (1 + K g),  q = mean_x p(x),  g = max(1/B, 1/K) / max_k q_k
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from diffcern.methods.augmentations import augmented
from diffcern.methods.base import Method, Optimizer, Weights, call, descend, stop
from diffcern.methods.batch_norm import with_batch_statistics
from diffcern.methods.entropy import Share, entropy
from diffcern.methods.parameters import adaptable_copy, choose_parameters
from diffcern.predictors import Predictor
from diffcern.rng import generator
from diffcern.types import Cost, Inputs, Prediction

NEW = 0.1  # what the latest answers count for in m
SUREST = 0.99  # above which the likelihood ratio has no gradient: it has no lower bound


@dataclass(frozen=True)
class RoidState:
    """The weights, and m `[K]` (None before an image was seen: 1/K)."""

    weights: Weights
    mean: Tensor | None = None


class ROID(Method):
    """Online by default habit; the answer is that from before the step, its prior corrected.

    Defaults are the paper's for ImageNet: batch 64, SGD 2.5e-4 with momentum 0.9, tau 1/3, keep 0.99 (of the weights,
    the rest the source's). mirror: whether half of the augmented views are mirrored, as published; not every label
    survives that. Its weights and its correction are the batch's, so that it needs one whatever the predictor: of a
    single image w = 1, and the correction changes no answer.
    """

    needs_batch = True
    small: ClassVar[Mapping[str, Any]] = {"optimizer": "adam", "learning_rate": 1e-2, "mirror": False}

    def __init__(
        self,
        predictor: Predictor,
        *,
        tau: Annotated[float, Field(gt=0)] = 1 / 3,
        keep: Share = 0.99,
        mirror: bool = True,
        optimizer: str = "sgd",
        learning_rate: float = 2.5e-4,
        momentum: float = 0.9,
    ) -> None:
        self.predictor = adaptable_copy(with_batch_statistics(predictor), "norm")
        self.optimizer = Optimizer(optimizer, learning_rate, momentum)
        self.source = choose_parameters(self.predictor, "norm")
        self.tau, self.keep, self.mirror = tau, keep, mirror

    def init(self) -> RoidState:
        return RoidState(Weights(self.source))

    def step(self, state: RoidState, inputs: Inputs, seed: int) -> tuple[Prediction, RoidState]:
        leaves, optimizer = self.optimizer.start(state.weights)
        seen = self.predictor.resize(inputs.images)
        rngs = [generator(seed, "roid", id) for id in inputs.ids]
        views = torch.cat([augmented(x, 1, rng, self.mirror) for x, rng in zip(seen, rngs, strict=True)])
        with torch.enable_grad():
            logits, other = call(self.predictor, leaves, seen), call(self.predictor, leaves, views)
            p = logits.detach().softmax(1)
            mean = torch.full_like(p[0], 1 / p.shape[1]) if state.mean is None else state.mean
            losses = weigh(logits.detach(), mean, self.tau) * (likelihood_ratio(logits) + symmetric(logits, other))
            gradients = torch.autograd.grad(losses.mean(), list(leaves.values()))
        descend(leaves, optimizer, gradients)
        answer = Prediction(corrected(logits.detach()), [Cost()] * len(inputs), losses.detach()[:, None].tolist())
        after = stop(leaves, optimizer)
        near = {name: self.keep * w + (1 - self.keep) * self.source[name] for name, w in after.parameters.items()}
        return answer, RoidState(Weights(near, after.optimizer), (1 - NEW) * mean + NEW * p.mean(0))


def likelihood_ratio(logits: Tensor) -> Tensor:
    """SLR of logits `[B, K]`, `[B]`; of probabilities up to `SUREST`."""
    p = logits.softmax(1).clamp(max=SUREST)
    return -(p * (p.clamp(min=1e-30).log() - (1 - p).log())).sum(1)


def symmetric(one: Tensor, other: Tensor) -> Tensor:
    """SCE of logits `[B, K]`, `[B]`."""
    return -0.5 * (one.softmax(1) * other.log_softmax(1) + other.softmax(1) * one.log_softmax(1)).sum(1)


def weigh(logits: Tensor, mean: Tensor, tau: float) -> Tensor:
    """w of logits `[B, K]` and m `[K]`, `[B]`."""
    unusual = in_range(1 - F.cosine_similarity(logits.softmax(1), mean[None]))
    return (unusual >= unusual.mean()) * torch.exp(unusual * in_range(-entropy(logits)) / tau)


def in_range(values: Tensor) -> Tensor:
    """u of `[B]`; 0 where all are equal."""
    low, high = values.aminmax()
    return (values - low) / (high - low).clamp(min=1e-12)


def corrected(logits: Tensor) -> Tensor:
    """log p_k(x) pi_k of logits `[B, K]`, up to a constant of each image."""
    q = logits.softmax(1).mean(0)
    batch, classes = logits.shape
    smooth = max(1 / batch, 1 / classes) / q.max()
    return logits.log_softmax(1) + ((q + smooth) / (1 + classes * smooth)).log()
