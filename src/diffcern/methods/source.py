"""Source: the predictor as it is. The baseline that every table starts with."""

from __future__ import annotations

import torch

from diffcern.kinds import KINDS
from diffcern.methods.base import Method, call, frozen_copy
from diffcern.predictors import Predictor
from diffcern.types import Cost, Inputs, Prediction


class Source(Method):
    """No adaptation: softmax(f(x))."""

    tasks = tuple(KINDS)

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = frozen_copy(predictor)

    def init(self) -> None:
        return None

    @torch.no_grad()
    def step(self, state: None, inputs: Inputs, seed: int) -> tuple[Prediction, None]:
        return Prediction(call(self.predictor, {}, inputs.images), [Cost()] * len(inputs)), None
