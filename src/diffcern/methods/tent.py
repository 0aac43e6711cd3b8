"""TENT (Wang et al. 2021): batch statistics, and entropy minimisation over the affine of normalisation layers.

minimise  H = -(1/B) sum_b sum_k p_bk log p_bk     over gamma, beta
"""

from __future__ import annotations

import torch

from diffcern.methods.base import Count, Method, Optimizer, Weights, call, descend, stop
from diffcern.methods.batch_norm import with_batch_statistics
from diffcern.methods.parameters import adaptable_copy, choose_parameters
from diffcern.predictors import Predictor
from diffcern.types import Cost, Inputs, Prediction


class Tent(Method):
    """Online by default habit; the answer is the logits from before the step, as published.

    Defaults: CIFAR's (Adam 1e-3, batch 200); ImageNet's are SGD 2.5e-4, momentum 0.9, batch 64. SGD's momentum is
    Nesterov's, as in the published configuration.
    """

    needs_batch = True
    tasks = ("classification", "segmentation")

    def __init__(
        self,
        predictor: Predictor,
        *,
        optimizer: str = "adam",
        learning_rate: float = 1e-3,
        momentum: float = 0.9,
        steps: Count = 1,
    ) -> None:
        self.predictor = adaptable_copy(with_batch_statistics(predictor), "norm")
        self.optimizer = Optimizer(optimizer, learning_rate, momentum, nesterov=True)
        self.steps = steps

    def init(self) -> Weights:
        return Weights(choose_parameters(self.predictor, "norm"))

    def step(self, state: Weights, inputs: Inputs, seed: int) -> tuple[Prediction, Weights]:
        leaves, optimizer = self.optimizer.start(state)
        for _ in range(self.steps):
            with torch.enable_grad():
                logits = call(self.predictor, leaves, inputs.images)
                entropy = -(logits.softmax(1) * logits.log_softmax(1)).sum(1).mean()  # over images, and pixels
                gradients = torch.autograd.grad(entropy, list(leaves.values()))
            descend(leaves, optimizer, gradients)
        return Prediction(logits.detach(), [Cost()] * len(inputs)), stop(leaves, optimizer)
