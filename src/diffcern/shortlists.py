"""A shortlist of hypotheses at a cost that does not grow with their number: by the gradient at their even mixture.

    c = mean_k h_k,        slope_k = <d L / d c, h_k>        how fast the error falls as more weight goes to h_k

One differentiated evaluation ranks all of them, so a few draws leave a race among the first few. It needs a prior that
can be told a mixture: class weights (best where it was trained on them), or embeddings, of which it is the mean.
"""

from __future__ import annotations

import torch
from jaxtyping import Float32
from torch import Tensor

from diffcern.draws import Draws
from diffcern.errors import DiffcernError
from diffcern.likelihood import condition_gradient
from diffcern.priors.base import Prior
from diffcern.types import Condition, Latents


def slopes(
    prior: Prior,
    latents: Latents,
    hypotheses: Condition,
    draws: Draws,
    *,
    weighting: str = "eps",
    norm: str = "l2",
    rows: int = 256,
) -> Float32[Tensor, "batch hypotheses"]:
    """d L / d w_k of the condition sum_k w_k h_k at the even mixture: the least belongs on a shortlist first.

    Raises DiffcernError where the error does not depend on what the prior is told.
    """
    even = hypotheses.map(lambda value: value.mean(0, keepdim=True).expand(len(latents), *value.shape[1:]))
    found = condition_gradient(prior, latents, even, draws, weighting=weighting, norm=norm, rows=rows)
    parts = found.gradient.parts
    if not any(bool((value != 0).any()) for value in parts.values()):
        raise DiffcernError("the error of this prior has no gradient by the condition: leave the shortlist out")
    total = torch.zeros(len(latents), len(hypotheses), device=latents.device)
    for name, value in hypotheses.parts.items():
        total += parts[name].flatten(1) @ value.float().flatten(1).T
    return total
