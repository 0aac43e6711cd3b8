"""What a shortlist is made by: scores of every class of an image, the likeliest highest, before any race.

gradient      - d L / d w_k at the even mixture (`shortlists.py`): of the prior alone, a few differentiated draws
predictor     log f_k(x), free; leans on what the shift has damaged
prototypes    log N(z; mu_k, S) (`prototypes.py`), free once they are made; features of the predictor, not its head
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from jaxtyping import Float32, Int
from torch import Tensor

from diffcern.draws import Draws
from diffcern.errors import UsageError
from diffcern.methods.base import call, frozen_copy
from diffcern.methods.prototypes import Prototypes
from diffcern.predictors import Predictor
from diffcern.priors import Prior
from diffcern.racing import Rule
from diffcern.shortlists import slopes
from diffcern.tasks import Classification
from diffcern.types import Condition, Inputs, Latents


class Ranking(Protocol):
    """An object, not a function: its networks are found and moved with the method's. loaded: as a method's."""

    loaded: str

    def __call__(self, inputs: Inputs, latents: Latents, draws: Draws) -> Float32[Tensor, "batch classes"]: ...


class ByGradient:
    """From the first `count` draws of the race; a class is as good as its best phrasing."""

    loaded = ""

    def __init__(
        self,
        prior: Prior,
        hypotheses: Condition,
        owners: Int[Tensor, " phrasings"],
        rule: Rule,
        count: int,
        asking: Mapping[str, Any],
    ) -> None:
        self.prior, self.hypotheses, self.owners = prior, hypotheses, owners
        self.rule, self.count, self.asking = rule, count, dict(asking)

    def __call__(self, inputs: Inputs, latents: Latents, draws: Draws) -> Float32[Tensor, "batch classes"]:
        """Raises DiffcernError as `slopes`."""
        first = draws.at(self.rule.order(draws.timesteps, self.prior.num_timesteps)[:, : self.count])
        scores = -slopes(self.prior, latents, self.hypotheses, first, **self.asking)
        least = scores.new_full((len(scores), int(self.owners.max()) + 1), -torch.inf)
        return least.scatter_reduce(1, self.owners.expand_as(scores), scores, "amax")


class ByPredictor:
    """By its logits."""

    loaded = ""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = frozen_copy(predictor)

    def __call__(self, inputs: Inputs, latents: Latents, draws: Draws) -> Float32[Tensor, "batch classes"]:
        return self.logits(inputs)

    def logits(self, inputs: Inputs) -> Float32[Tensor, "batch classes"]:
        return call(self.predictor, {}, inputs.images).float()


class ByPrototypes:
    """By those of the small preset, or of the images in `generated`."""

    def __init__(self, predictor: Predictor, prior: Prior, task: Classification, generated: str) -> None:
        small: dict[str, Any] = {"generated": generated} if generated else dict(Prototypes.small)
        self.prototypes = Prototypes(predictor, prior, task, **small)
        self.loaded = self.prototypes.loaded

    def __call__(self, inputs: Inputs, latents: Latents, draws: Draws) -> Float32[Tensor, "batch classes"]:
        return self.prototypes.log_likelihood(inputs)


def given(predictor: Predictor | None, option: str) -> Predictor:
    """The predictor. Raises UsageError where there is none."""
    if predictor is None:
        raise UsageError(
            f"{option} asks a predictor: give one (`diffcern adapt --method diffusion-classifier --predictor NAME`), "
            f"or leave {option.split()[0]} out"
        )
    return predictor
