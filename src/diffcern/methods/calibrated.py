"""A method whose answers are divided by a fitted temperature, see `calibration.py`; everything else is its own."""

from __future__ import annotations

from dataclasses import replace

import torch

from diffcern.calibration import Calibration
from diffcern.methods.base import Method, State
from diffcern.types import Inputs, Prediction


class Calibrated(Method):
    """logits / tau + b of each image, where the method gives logits of classes `[B, K]`."""

    def __init__(self, method: Method, calibration: Calibration) -> None:
        self.method, self.calibration = method, calibration
        self.needs_batch, self.source_count = method.needs_batch, method.source_count
        self.evaluations, self.loaded, self.tasks = method.evaluations, method.loaded, method.tasks

    def init(self) -> State:
        return self.method.init()

    def step(self, state: State, inputs: Inputs, seed: int) -> tuple[Prediction, State]:
        prediction, after = self.method.step(state, inputs, seed)
        output = prediction.output / self.calibration.temperature
        if self.calibration.bias:
            output = output + torch.tensor(self.calibration.bias).to(output)
        return replace(prediction, output=output), after
