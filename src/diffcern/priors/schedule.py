"""The noise schedule of a diffusers scheduler as tables: x_t = alphas[t] x0 + sigmas[t] eps, in fp64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffcern.errors import DiffcernError

PREDICTION_KINDS = {  # diffusers' -> ours
    "epsilon": "eps",
    "sample": "x0",
    "v_prediction": "v",
    "flow_prediction": "flow",
}


@dataclass(frozen=True)
class Schedule:
    """kind: what the network estimates; alphas, sigmas: `[T]` fp64; times: what the network is told at t, `[T]`."""

    kind: str
    alphas: Tensor
    sigmas: Tensor
    times: Tensor


def schedule_of(scheduler: Any) -> Schedule:
    """Reads a diffusers scheduler, whatever it was made to sample with: only how noise was added in training counts.

    Raises DiffcernError for a prediction type or a noise schedule (EDM's, say) that no method here understands.
    """
    from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler

    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler | FlowMatchHeunDiscreteScheduler):
        dynamic = scheduler.config.get("use_dynamic_shifting", False)  # then the shift is a sampler's, by the size
        return _flow(scheduler.config.num_train_timesteps, 1.0 if dynamic else scheduler.config.shift)
    kind = PREDICTION_KINDS.get(scheduler.config.get("prediction_type", "epsilon"))
    if kind is None:
        raise DiffcernError(
            f"the prior's scheduler predicts {scheduler.config.prediction_type!r}; known: {', '.join(PREDICTION_KINDS)}"
        )
    if kind == "flow":  # a DPM-Solver or UniPC that is set up for a flow model
        return _flow(scheduler.config.num_train_timesteps, scheduler.config.get("flow_shift", 1.0))
    if "beta_schedule" not in scheduler.config:
        raise DiffcernError(
            f"the prior's {type(scheduler).__name__} does not say how noise was added: priors need a schedule of betas "
            "(DDPM, DDIM, Euler, DPM-Solver ...) or flow matching"
        )
    betas = DDPMScheduler.from_config(scheduler.config).betas.double()
    alphas_cumprod = torch.cumprod(1 - betas, 0)
    count = len(betas)
    if not count or not bool(((alphas_cumprod >= 0) & (alphas_cumprod <= 1)).all()):
        raise DiffcernError("the prior's scheduler has betas that are no shares of noise, 0 to 1: restore its file")
    return Schedule(kind, alphas_cumprod.sqrt(), (1 - alphas_cumprod).sqrt(), torch.arange(count))


def _flow(count: int, shift: float) -> Schedule:
    """x_t = (1 - s) x0 + s eps on the grid 1/T, ..., 1, shifted towards noise; the network is told s T."""
    sigmas = torch.arange(1, count + 1, dtype=torch.float64) / count
    sigmas = shift * sigmas / (1 + (shift - 1) * sigmas)
    return Schedule("flow", 1 - sigmas, sigmas, (sigmas * count).float())
