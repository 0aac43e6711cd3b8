"""TENT (Wang et al. 2021, arXiv 2006.10726): batch statistics; entropy minimised over the affine of norms.

minimise  H = -(1/B) sum_b sum_k p_bk log p_bk     over gamma, beta
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from diffcern.methods.base import Count, Method, Optimizer, Weights, call, descend, stop
from diffcern.methods.batch_norm import Statistics, with_statistics
from diffcern.methods.entropy import entropy
from diffcern.methods.parameters import adaptable_copy, choose_parameters
from diffcern.predictors import Predictor
from diffcern.types import Cost, Inputs, Prediction


class Tent(Method):
    """Online by default habit; the answer is the logits from before the step, as published.

    Defaults: CIFAR's (Adam 1e-3, batch 200); ImageNet's are SGD 2.5e-4, momentum 0.9, batch 64. SGD's momentum is
    Nesterov's, as in the published configuration. statistics: of BatchNorm, the "batch"'s as published, or the
    "source"'s: then only the affine weights adapt, and a stream may come image by image (an image alone, in one step,
    is answered as by source: it is what the state carries that counts).
    """

    needs_batch = True
    tasks = ("classification", "segmentation")
    added: ClassVar[Mapping[str, Any]] = {"statistics": "batch"}

    def __init__(
        self,
        predictor: Predictor,
        *,
        optimizer: str = "adam",
        learning_rate: float = 1e-3,
        momentum: float = 0.9,
        steps: Count = 1,
        statistics: Statistics = "batch",
    ) -> None:
        self.predictor = adaptable_copy(with_statistics(predictor, statistics), "norm")
        self.optimizer = Optimizer(optimizer, learning_rate, momentum, nesterov=True)
        self.steps, self.needs_batch = steps, statistics == "batch"

    def init(self) -> Weights:
        return Weights(choose_parameters(self.predictor, "norm"))

    def step(self, state: Weights, inputs: Inputs, seed: int) -> tuple[Prediction, Weights]:
        leaves, optimizer = self.optimizer.start(state)
        for _ in range(self.steps):
            with torch.enable_grad():
                logits = call(self.predictor, leaves, inputs.images)
                loss = entropy(logits).mean()  # over images, and pixels
                gradients = torch.autograd.grad(loss, list(leaves.values()))
            descend(leaves, optimizer, gradients)
        return Prediction(logits.detach(), [Cost()] * len(inputs)), stop(leaves, optimizer)
