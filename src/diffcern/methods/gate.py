"""Which images of a batch still take steps of Diffusion-TTA: those in which a rival class stands out of the noise."""

from __future__ import annotations

import torch
from torch import Tensor

from diffcern.likelihood import ConditionGradient
from diffcern.types import Condition


def rival_z(per_draw: Condition, condition: Condition) -> Tensor:
    """How many standard errors the best rival stands out by, `[B]`.

    With g_m = d loss_m / d c, moving mass from the top class to class k lowers the loss at the rate
    mean_m(g_m[top] - g_m[k]); the draws are shared, so its standard error is that of the paired differences.
    """
    assert per_draw.classes is not None
    assert condition.classes is not None
    g = per_draw.classes  # [B, M, K]
    top = condition.classes.argmax(-1)[:, None, None].expand(-1, g.shape[1], 1)
    rate = g.gather(-1, top) - g
    error = rate.std(1) / rate.shape[1] ** 0.5
    z = rate.mean(1) / error.clamp(min=1e-12)
    return z.masked_fill(condition.classes == 0, -torch.inf).amax(-1)  # classes that the predictor cannot answer


def mask(gradient: ConditionGradient, active: Tensor) -> ConditionGradient:
    """The gradient with the rows of inactive images set to zero."""
    zeroed = gradient.gradient.map(lambda value: value * active.view(-1, *[1] * (value.ndim - 1)))
    return ConditionGradient(gradient.losses, zeroed, gradient.per_draw, gradient.parameters)
