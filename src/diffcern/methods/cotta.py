"""CoTTA (Wang et al. 2022, arXiv 2203.13591): a student of a mean teacher, of which some weights are given back.

minimise  -sum_k y_k log p_k(x; theta)     over all weights theta of the student

y = p(x; theta') of the teacher, or its mean over 32 augmented views where max_k p_k(x; theta_source) < p_th
theta' <- 0.999 theta' + 0.001 theta;    theta_i <- theta_i of the source with probability 0.01;    answer: y
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffcern.methods.augmentations import augmented
from diffcern.methods.base import Count, Method, Optimizer, Weights, call, descend, stop
from diffcern.methods.batch_norm import Statistics, with_statistics
from diffcern.methods.entropy import Share
from diffcern.methods.parameters import adaptable_copy, choose_parameters
from diffcern.predictors import Predictor
from diffcern.rng import generator
from diffcern.types import Cost, Inputs, Prediction


@dataclass(frozen=True)
class CottaState:
    """The student's weights, the teacher's by name, and how many steps led there."""

    student: Weights
    teacher: dict[str, Tensor]
    steps: int = 0


class CoTTA(Method):
    """Online by default habit; the answer is the teacher's from before the step, as published.

    Defaults are the paper's for CIFAR-10: batch 200, Adam 1e-3, views 32, threshold 0.92 (p_th), keep 0.999 (of the
    teacher), restore 0.01; ImageNet: SGD 0.01, threshold 0.1, restore 0.001. mirror: whether half of the views are
    mirrored, as published; not every label survives that. statistics: see `Tent`. What is restored is keyed by the
    seed, the images and the number of the step.
    """

    needs_batch = True
    small: ClassVar[Mapping[str, Any]] = {"views": 8, "mirror": False}

    def __init__(
        self,
        predictor: Predictor,
        *,
        views: Count = 32,
        threshold: Share = 0.92,
        keep: Share = 0.999,
        restore: Share = 0.01,
        mirror: bool = True,
        optimizer: str = "adam",
        learning_rate: float = 1e-3,
        momentum: float = 0.9,
        statistics: Statistics = "batch",
    ) -> None:
        self.predictor = adaptable_copy(with_statistics(predictor, statistics), "all")
        self.source = choose_parameters(self.predictor, "all")
        self.optimizer = Optimizer(optimizer, learning_rate, momentum)
        self.views, self.threshold, self.keep, self.restore = views, threshold, keep, restore
        self.mirror, self.needs_batch = mirror, statistics == "batch"

    def init(self) -> CottaState:
        return CottaState(Weights(self.source), self.source)

    def step(self, state: CottaState, inputs: Inputs, seed: int) -> tuple[Prediction, CottaState]:
        leaves, optimizer = self.optimizer.start(state.student)
        y = self._labels(state.teacher, inputs, seed)
        with torch.enable_grad():
            losses = -(y * call(self.predictor, leaves, inputs.images).log_softmax(1)).sum(1)
            gradients = torch.autograd.grad(losses.mean(), list(leaves.values()), allow_unused=True)
        descend(leaves, optimizer, gradients)
        student = stop(leaves, optimizer)
        teacher = {name: self.keep * w + (1 - self.keep) * leaves[name].detach() for name, w in state.teacher.items()}
        rng = generator(seed, "cotta-restore", state.steps, *inputs.ids)
        restored = Weights(given_back(student.parameters, self.source, self.restore, rng), student.optimizer)
        answer = Prediction(y.clamp(min=1e-30).log(), [Cost()] * len(inputs), losses.detach()[:, None].tolist())
        return answer, CottaState(restored, teacher, state.steps + 1)

    @torch.no_grad()
    def _labels(self, teacher: dict[str, Tensor], inputs: Inputs, seed: int) -> Tensor:
        """y of each image, `[B, K]`."""
        seen = self.predictor.resize(inputs.images)
        y = call(self.predictor, teacher, seen).softmax(1)
        sure = call(self.predictor, self.source, seen).softmax(1).amax(1) >= self.threshold
        if sure.all():
            return y
        rngs = [generator(seed, "cotta", id) for id in inputs.ids]
        views = [augmented(x, self.views, rng, self.mirror) for x, rng in zip(seen, rngs, strict=True)]
        answers = [call(self.predictor, teacher, view).softmax(1) for view in torch.stack(views, 1)]  # a view of each
        return torch.where(sure[:, None], y, torch.stack(answers).mean(0))


def given_back(
    weights: dict[str, Tensor], source: dict[str, Tensor], share: float, rng: torch.Generator
) -> dict[str, Tensor]:
    """M source + (1 - M) weights, M of each number drawn 1 with probability `share`."""
    drawn = {name: torch.rand(value.shape, generator=rng).to(value.device) < share for name, value in weights.items()}
    return {name: torch.where(drawn[name], source[name], value) for name, value in weights.items()}
