"""EATA (Niu et al. 2022, arXiv 2204.02610): lower the entropy of answers that are sure and new, and forget nothing.

minimise  1/|S| sum_{x in S} exp(E0 - E(x)) E(x) + beta sum_i F_i (theta_i - theta_i^source)^2     over norms' affine

S = {x: E(x) < E0 and cos(p(x), m) < eps},    E0 = 0.4 ln K,    m <- 0.9 m + 0.1 mean_{x in S} p(x)
F_i = 1/Q sum_q (d CE(f(x_q), argmax f(x_q)) / d theta_i)^2     over images x_q of the kind that f was trained on

Without such images there is no F, and the method is called ETA.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from diffcern.data import load_dataset, subset
from diffcern.errors import UsageError
from diffcern.fingerprints import digest
from diffcern.methods.base import Count, Method, Optimizer, Weights, call, descend, stop
from diffcern.methods.batch_norm import Statistics, with_statistics
from diffcern.methods.entropy import Share, average_of, entropy, largest
from diffcern.methods.parameters import adaptable_copy, choose_parameters
from diffcern.predictors import Predictor
from diffcern.types import Cost, Inputs, Prediction
from diffcern.watching import doing

NEW = 0.1  # what the latest answers count for in m


@dataclass(frozen=True)
class EataState:
    """The weights, and m `[K]` (None before an image was learned from)."""

    weights: Weights
    mean: Tensor | None = None


class ETA(Method):
    """Online by default habit; the answer is the logits from before the step, as published.

    Defaults are the paper's for ImageNet: batch 64, SGD 2.5e-4 with momentum 0.9, sure 0.4 (E0 over ln K), alike 0.05
    (eps; 0.4 for the ten classes of CIFAR-10: the fewer classes, the more answers are alike). statistics: see `Tent`.
    A batch of which no image is chosen moves nothing.
    """

    needs_batch = True
    small: ClassVar[Mapping[str, Any]] = {"optimizer": "adam", "learning_rate": 1e-2, "alike": 0.4}

    def __init__(
        self,
        predictor: Predictor,
        *,
        sure: Share = 0.4,
        alike: Share = 0.05,
        optimizer: str = "sgd",
        learning_rate: float = 2.5e-4,
        momentum: float = 0.9,
        statistics: Statistics = "batch",
    ) -> None:
        self.predictor = adaptable_copy(with_statistics(predictor, statistics), "norm")
        self.optimizer = Optimizer(optimizer, learning_rate, momentum)
        self.sure, self.alike, self.needs_batch = sure, alike, statistics == "batch"
        self.source = choose_parameters(self.predictor, "norm")
        self.held: dict[str, Tensor] = {}  # beta F of each weight: by how much it is held where it was

    def init(self) -> EataState:
        return EataState(Weights(self.source))

    def step(self, state: EataState, inputs: Inputs, seed: int) -> tuple[Prediction, EataState]:
        leaves, optimizer = self.optimizer.start(state.weights)
        with torch.enable_grad():
            logits = call(self.predictor, leaves, inputs.images)
            weights = weigh(logits.detach(), state.mean, self.sure, self.alike)
            losses, chosen = weights * entropy(logits), weights > 0
            gradients = torch.autograd.grad(average_of(losses, chosen) + self._moved(leaves), list(leaves.values()))
        trace = losses.detach()[:, None].tolist()
        answer = Prediction(logits.detach(), [Cost()] * len(inputs), trace)
        if not chosen.any():
            return answer, state
        descend(leaves, optimizer, gradients)
        seen = answer.probabilities[chosen].mean(0)
        mean = seen if state.mean is None else (1 - NEW) * state.mean + NEW * seen
        return answer, EataState(stop(leaves, optimizer), mean)

    def _moved(self, leaves: dict[str, Tensor]) -> Tensor | float:
        """beta sum_i F_i (theta_i - theta_i^source)^2."""
        moved = {name: leaves[name] - self.source[name] for name in self.held}
        return sum((held * moved[name].square()).sum() for name, held in self.held.items())


class EATA(ETA):
    """ETA, and a pull back to the given weights by beta F.

    source_images: a data set by name ("embedded:digits/train", "imagefolder:PATH"), of the kind that the predictor was
    trained on; their labels are not read, so that images a prior has made will do. fisher_count: Q, how many of
    them. beta: the paper's for ImageNet (1 for CIFAR-10). F is of the predictor as it was trained, one image at a time,
    with the source's statistics. Raises UsageError without source_images.
    """

    small: ClassVar[Mapping[str, Any]] = {**ETA.small, "beta": 1.0, "fisher_count": 200}

    def __init__(
        self,
        predictor: Predictor,
        *,
        source_images: str = "",
        fisher_count: Count = 2000,
        beta: Annotated[float, Field(ge=0)] = 2000.0,
        sure: Share = 0.4,
        alike: Share = 0.05,
        optimizer: str = "sgd",
        learning_rate: float = 2.5e-4,
        momentum: float = 0.9,
        statistics: Statistics = "batch",
    ) -> None:
        rates = {"learning_rate": learning_rate, "momentum": momentum}
        if not source_images:
            raise UsageError(
                "eata weighs by images of the kind that the predictor was trained on: set source_images to a data set "
                "(embedded:digits/train, imagefolder:PATH), or take eta, which is the same without them"
            )
        super().__init__(predictor, sure=sure, alike=alike, optimizer=optimizer, statistics=statistics, **rates)
        images = subset(load_dataset(source_images), fisher_count, seed=0)
        with doing(f"weighing the weights by {len(images)} images of {source_images}"):
            matter = fisher(predictor, (images[k].image for k in range(len(images))))
        self.held = {name: beta * value for name, value in matter.items()}
        self.loaded = digest([source_images, *images.ids])


def weigh(logits: Tensor, mean: Tensor | None, sure: float, alike: float) -> Tensor:
    """exp(E0 - E) of the images in S, 0 of the others, `[B]`; of logits `[B, K]`, m `[K]` or None before it exists."""
    uncertain, bound = entropy(logits), sure * largest(logits)
    chosen = uncertain < bound
    if mean is not None:
        chosen &= F.cosine_similarity(logits.softmax(1), mean[None]) < alike
    return chosen * torch.exp(bound - uncertain)


def fisher(predictor: Predictor, images: Iterable[Tensor]) -> dict[str, Tensor]:
    """F of the affine of normalisation layers, by name, from images `[3, H, W]`: the mean square of each image's own
    gradient of the cross entropy with the predictor's answer."""
    network = adaptable_copy(predictor, "norm")
    leaves = {name: value.requires_grad_() for name, value in choose_parameters(network, "norm").items()}
    total, count = {name: torch.zeros_like(value) for name, value in leaves.items()}, 0
    for image in images:
        with torch.enable_grad():
            logits = call(network, leaves, image[None].to(network.mean.device))
            gradients = torch.autograd.grad(F.cross_entropy(logits, logits.argmax(1)), list(leaves.values()))
        for square, gradient in zip(total.values(), gradients, strict=True):
            square += gradient.square()
        count += 1
    return {name: square / count for name, square in total.items()}
