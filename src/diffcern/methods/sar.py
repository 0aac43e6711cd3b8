"""SAR (Niu et al. 2023, arXiv 2302.12400): lower the entropy of sure answers, to where it is flat around the weights.

minimise  1/|S| sum_{x in S} max_{||e|| <= rho} E(x; theta + e)     over norms' affine but the top layers',

S = {x: E(x; theta) < 0.4 ln K},    e = rho g / ||g||_2,    g the gradient at theta;    the step's is that at theta + e.
Where the moving average of the loss, e_m <- 0.9 e_m + 0.1 loss, is below e_0 the weights are the given ones again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
from diffcern.types import Cost, Inputs, Prediction

NEW = 0.1  # what the latest loss counts for in e_m
Positive = Annotated[float, Field(ge=0)]


@dataclass(frozen=True)
class SarState:
    """The weights, and e_m (None before an image was learned from)."""

    weights: Weights
    loss: float | None = None


class SAR(Method):
    """Online by default habit; the answer is the logits from before the step, as published.

    Defaults are the paper's for ResNet-50: batch 64, SGD 2.5e-4 with momentum 0.9, sure 0.4, rho 0.05, recovery 0.2
    (e_0; below it all answers are alike; it is in nats, and 10 classes that are told apart well are below it without
    any harm); ViT-B: learning_rate 1e-3. frozen: beginnings of names of the network's parts that stay as they are, by
    default the top of timm's and torchvision's ResNets and of timm's ViT-B, as published; the parts of other networks
    are called otherwise. statistics: see `Tent`; the paper finds the batch's a trap, and prefers networks without
    BatchNorm. Raises UsageError where frozen leaves nothing to move.
    """

    needs_batch = True
    small: ClassVar[Mapping[str, Any]] = {"optimizer": "adam", "learning_rate": 1e-2, "recovery": 0.0}

    def __init__(
        self,
        predictor: Predictor,
        *,
        sure: Share = 0.4,
        rho: Positive = 0.05,
        recovery: Positive = 0.2,
        frozen: tuple[str, ...] = ("layer4", "blocks.9", "blocks.10", "blocks.11", "norm"),
        optimizer: str = "sgd",
        learning_rate: float = 2.5e-4,
        momentum: float = 0.9,
        statistics: Statistics = "batch",
    ) -> None:
        self.predictor = adaptable_copy(with_statistics(predictor, statistics), "norm")
        self.optimizer = Optimizer(optimizer, learning_rate, momentum)
        self.sure, self.rho, self.recovery, self.frozen = sure, rho, recovery, tuple(frozen)
        self.needs_batch = statistics == "batch"
        if not self.init().weights.parameters:
            raise UsageError(f"frozen = {list(frozen)} leaves no normalisation layer to move: name fewer parts")

    def init(self) -> SarState:
        chosen = choose_parameters(self.predictor, "norm")
        return SarState(Weights({name: value for name, value in chosen.items() if not self._stays(name)}))

    def _stays(self, name: str) -> bool:
        inside = name.removeprefix("model.")  # of the network, whose place in a predictor that is
        return any(inside.startswith(f"{part}.") for part in self.frozen)

    def step(self, state: SarState, inputs: Inputs, seed: int) -> tuple[Prediction, SarState]:
        leaves, optimizer = self.optimizer.start(state.weights)
        with torch.enable_grad():
            logits = call(self.predictor, leaves, inputs.images)
            losses = entropy(logits)
            chosen = losses.detach() < self.sure * largest(logits)
            gradients = torch.autograd.grad(average_of(losses, chosen), list(leaves.values()))
        answer = Prediction(logits.detach(), [Cost()] * len(inputs), losses.detach()[:, None].tolist())
        if not chosen.any():
            return answer, state
        with torch.enable_grad():
            sharper = ascended(leaves, gradients, self.rho)
            loss = average_of(entropy(call(self.predictor, sharper, inputs.images)), chosen)
            gradients = torch.autograd.grad(loss, list(sharper.values()))
        descend(leaves, optimizer, gradients)
        mean = loss.item() if state.loss is None else (1 - NEW) * state.loss + NEW * loss.item()
        return answer, SarState(self.init().weights if mean < self.recovery else stop(leaves, optimizer), mean)


def ascended(leaves: dict[str, Tensor], gradients: tuple[Tensor, ...], rho: float) -> dict[str, Tensor]:
    """theta + rho g / ||g||_2, the norm over all weights together."""
    length = torch.stack([gradient.norm() for gradient in gradients]).norm()
    moved = zip(leaves.items(), gradients, strict=True)
    return {name: (leaf.detach() + rho * g / (length + 1e-12)).requires_grad_() for (name, leaf), g in moved}
