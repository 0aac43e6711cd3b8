"""What a shortlist is made by: scores of every hypothesis of an image, the likeliest highest, before any race.

gradient      - d L / d w_k at the even mixture (`shortlists.py`): of the prior alone, a few differentiated draws
predictor     log f_k(x), free; leans on what the shift has damaged
prototypes    log N(z; mu_k, S) (`prototypes.py`), free once they are made; features of the predictor, not its head
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

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

Ranking = Callable[[Inputs, Latents, Draws], Float32[Tensor, "batch hypotheses"]]
RANKINGS = ("gradient", "predictor", "prototypes")


def by_gradient(prior: Prior, hypotheses: Condition, rule: Rule, count: int, asking: Mapping[str, Any]) -> Ranking:
    """From the first `count` draws of the race. Raises DiffcernError as `slopes`."""

    def rank(inputs: Inputs, latents: Latents, draws: Draws) -> Float32[Tensor, "batch hypotheses"]:
        first = draws.at(rule.order(draws.timesteps, prior.num_timesteps)[:, :count])
        return -slopes(prior, latents, hypotheses, first, **asking)

    return rank


def by_classes(
    which: str,
    predictor: Predictor | None,
    prior: Prior,
    task: Classification,
    owners: Int[Tensor, " hypotheses"],
    generated: str,
) -> Ranking:
    """By what a predictor says of its classes; owners: the class of each hypothesis. Raises UsageError for none."""
    if predictor is None:
        raise UsageError(
            f"shortlist = {which} asks a predictor first: give one (`diffcern adapt --method diffusion-classifier "
            "--predictor NAME`), or take shortlist = gradient"
        )
    if which == "predictor":
        network = frozen_copy(predictor)
        return lambda inputs, latents, draws: call(network, {}, inputs.images).float()[:, owners]
    small: dict[str, Any] = {**Prototypes.small, "generated": generated}
    prototypes = Prototypes(predictor, prior, task, **small)
    return lambda inputs, latents, draws: prototypes.log_likelihood(inputs)[:, owners]
