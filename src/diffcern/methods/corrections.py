"""What can be done to one image without any prior: the rivals of a canonical view.

auto-contrast       each channel's own range becomes [0, 1]
grey-world          channels get equal means (Buchsbaum 1980), as far as nothing is clipped
random-views        the mean of the probabilities over random turns and lights of the image
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffcern.errors import UsageError
from diffcern.kinds import KINDS
from diffcern.methods.base import Count, Method, frozen_view
from diffcern.predictors import Predictor
from diffcern.rng import generator
from diffcern.tasks import Task
from diffcern.transformations import IDENTITY, Transformation
from diffcern.types import Cost, Inputs, Prediction
from diffcern.views import grey_world


class Corrected(Method):
    """The predictor's answer to what a fixed rule makes of each image `[1, 3, H, W]`."""

    tasks = tuple(KINDS)

    def __init__(self, predictor: Predictor, rule: Callable[[Tensor], Tensor]) -> None:
        self.predictor, self.rule = frozen_view(predictor), rule

    def init(self) -> None:
        return None

    @torch.no_grad()
    def step(self, state: None, inputs: Inputs, seed: int) -> tuple[Prediction, None]:
        outputs = [self.predictor(self.rule(image[None])) for image in inputs.images]
        return Prediction(torch.cat(outputs), [Cost()] * len(inputs)), None


class AutoContrast(Corrected):
    """torchvision's `autocontrast`; a channel without any range stays as it is."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__(predictor, _autocontrast)


def _autocontrast(image: Tensor) -> Tensor:
    from torchvision.transforms.v2 import functional  # which takes its time

    return functional.autocontrast(image)


class GreyWorld(Corrected):
    """Gains for channels of equal means, then one for all of them, so that the brightest number is 1 at most."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__(predictor, lambda image: grey_world(IDENTITY, image, 1.0).apply(image).clamp(0, 1))


class RandomViews(Method):
    """The mean of the probabilities over the image and views - 1 random transformations of it, keyed by seed and id.

    turn: degrees to either side; light: gains from 1 / (1 + light) to 1 + light around the image's mean, clipped.
    """

    def __init__(
        self, predictor: Predictor, task: Task, *, views: Count = 16, turn: float = 30.0, light: float = 1.0
    ) -> None:
        if not (0 <= turn <= 180 and light >= 0):
            raise UsageError(f"turn is 0 to 180 degrees and light at least 0, not {turn} and {light}")
        self.predictor, self.task, self.views, self.turn, self.light = frozen_view(predictor), task, views, turn, light

    def init(self) -> None:
        return None

    @torch.no_grad()
    def step(self, state: None, inputs: Inputs, seed: int) -> tuple[Prediction, None]:
        outputs = []
        for image, id in zip(inputs.images, inputs.ids, strict=True):
            rng = generator(seed, "random-views", id)
            drawn = (2 * torch.rand(self.views - 1, 2, generator=rng) - 1).tolist()
            views = [view.apply(image[None]).clamp(0, 1) for view in (self._view(image, *each) for each in drawn)]
            average = self.task.to_average(self.predictor(torch.cat([image[None], *views]))).mean(0, keepdim=True)
            outputs.append(self.task.from_average(average))
        return Prediction(torch.cat(outputs), [Cost()] * len(inputs)), None

    def _view(self, image: Tensor, turn: float, light: float) -> Transformation:
        gain = (1 + self.light) ** light
        offset = (1 - gain) * image.mean().item()
        return Transformation(gain=(gain,) * 3, offset=(offset,) * 3, turn=self.turn * turn)
