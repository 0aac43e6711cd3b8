"""What every task offers the methods: how a predictor's output is read, and what the prior is told of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from jaxtyping import Float, Float32, Int, Shaped
from torch import Tensor
from torch.nn import functional as F

from diffcern.data.base import Sample
from diffcern.errors import DiffcernError, UsageError
from diffcern.kinds import Kind, TaskName
from diffcern.predictors.base import Predictor
from diffcern.priors.base import Prior
from diffcern.spellings import Spellings, abridged
from diffcern.types import Condition

Outputs = Float[Tensor, "batch *answer"]  # of predictors
Keep = Int[Tensor, "batch candidates"]  # the classes that each image's condition mixes


class Task(Protocol):
    """kind: its row of `kinds.KINDS`; name: the row's. class_names: of the output's channels, empty where it has none.

    One with an answer at every pixel also has `encode` and `decode` of a truth, `answer` (an output as a truth) and
    `change` (how far an answer moved).

    outputs are what predictors give: `[B, K]` logits of classes, `[B, K, H, W]` of pixels, `[B, H, W]` of depth.
    """

    kind: Kind
    name: TaskName
    class_names: tuple[str, ...]

    @classmethod
    def joining(cls, predictor: Predictor, prior: Prior | None) -> Task:
        """What the predictor is for, joined to what the prior can be told. Raises DiffcernError where names do not
        meet."""
        ...

    def check(self, prior: Prior) -> None:
        """Raises DiffcernError unless the prior can be told `condition`s."""
        ...

    def condition(self, output: Outputs, keep: Keep | None = None) -> Condition:
        """What the prior is told, differentiable in the output; keep: the classes to mix, where there are any."""
        ...

    def check_sample(self, sample: Sample, like: Float[Tensor, "*answer"]) -> None:
        """Raises DiffcernError where a sample's truth is none, or does not fit the image or output `like`; a sample may
        come without one."""
        ...

    def statistics(self, output: Float[Tensor, "*answer"], sample: Sample) -> list[float]:
        """One image's own against its truth, as the metrics of `kinds.KINDS` sum them up.

        Empty where the sample has no truth. Raises as `check_sample`.
        """
        ...

    @staticmethod
    def loss(output: Outputs, truth: Shaped[Tensor, "batch ..."], label_smoothing: float = 0.0) -> Float[Tensor, ""]:
        """What a predictor is trained by: the mean over images, or over the pixels whose truth is known; maps are
        compared in the size of the truth."""
        ...

    @staticmethod
    def to_average(output: Outputs) -> Outputs:
        """What is averaged of several answers, on a scale where that makes sense."""
        ...

    @staticmethod
    def from_average(average: Outputs) -> Outputs:
        """An output that `to_average` makes the average of."""
        ...


class OfClasses:
    """What tasks whose answers are logits of classes, in axis 1, have in common."""

    @staticmethod
    def to_average(output: Float[Tensor, "batch classes ..."]) -> Float32[Tensor, "batch classes ..."]:
        """Probabilities."""
        return torch.softmax(output.float(), 1)

    @staticmethod
    def from_average(average: Float[Tensor, "batch classes ..."]) -> Float[Tensor, "batch classes ..."]:
        """Their logarithm."""
        return average.clamp(min=1e-12).log()


def fitted(
    output: Float[Tensor, "*channels height width"], truth: Shaped[Tensor, "rows columns"]
) -> Float32[Tensor, "_ rows columns"]:
    """One image's output in the size of its truth, bilinear; depth becomes one channel."""
    maps = output[None, None] if output.ndim == 2 else output[None]
    return F.interpolate(maps.float(), truth.shape[-2:], mode="bilinear", align_corners=False)[0]


def resized(
    maps: Float[Tensor, "batch channels rows columns"], shape: tuple[int, int]
) -> Float[Tensor, "batch channels height width"]:
    """Maps at another size: bilinear, antialiased where smaller."""
    if tuple(maps.shape[-2:]) == shape:
        return maps
    return F.interpolate(maps, shape, mode="bilinear", antialias=True, align_corners=False)


def name_map(class_names: Sequence[str], prior_class_names: Sequence[str]) -> Float[Tensor, "classes prior_classes"]:
    """1 where two names mean one class (see `spellings.Spellings`). Raises DiffcernError naming both sides where one is
    unknown to the prior, or stands twice."""
    names, known = list(class_names), list(prior_class_names)
    spellings, problem = Spellings(known), ""
    mapping = torch.zeros(len(names), len(known))
    if missing := spellings.unknown(names):
        problem = f"the prior lacks {abridged(missing)}{spellings.nearest(missing)}"
    elif len(set(known)) < len(known):
        problem = "a name stands twice"
    else:
        try:
            mapping[range(len(names)), spellings.indices(names)] = 1
        except UsageError as error:
            problem = str(error)
    if problem:
        raise DiffcernError(
            f"{len(names)} labels ({abridged(names)}) do not map by name onto the prior's {len(known)} classes "
            f"({abridged(known)}): {problem}. Give models of one label space, or name the classes alike (--class-map)"
        )
    return mapping
