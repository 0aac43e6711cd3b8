"""How a reverse process is integrated: diffusers' schedulers by name, respaced so that they start where they are told.

The schedule is cut to `steps` times from `start` down to 0 (as Nichol & Dhariwal 2021, arXiv 2102.09672, respace
theirs), and a scheduler is built whose training steps are these. It takes unit steps only, so that the index which an
image is noised to is the index which it is denoised from, whatever the solver's own rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from torch import Generator, Tensor

from diffcern.errors import UsageError, unknown
from diffcern.priors.base import Prior


def ddpm(options: dict[str, Any]) -> Any:
    """Ancestral sampling (Ho et al. 2020)."""
    return DDPMScheduler(**options, clip_sample=False)


def ddim(options: dict[str, Any]) -> Any:
    """Song et al. 2021; eta 0 is deterministic, 1 ancestral."""
    return DDIMScheduler(**options, clip_sample=False)


def dpm_solver(options: dict[str, Any]) -> Any:
    """DPM-Solver++ (2M), deterministic (Lu et al. 2022, arXiv 2211.01095)."""
    return DPMSolverMultistepScheduler(**options, algorithm_type="dpmsolver++")


def dpm_solver_sde(options: dict[str, Any]) -> Any:
    """SDE-DPM-Solver++ (2M)."""
    return DPMSolverMultistepScheduler(**options, algorithm_type="sde-dpmsolver++")


def unipc(options: dict[str, Any]) -> Any:
    """UniPC (Zhao et al. 2023, arXiv 2302.04867), deterministic."""
    return UniPCMultistepScheduler(**options)


DIFFUSION: dict[str, Callable[[dict[str, Any]], Any]] = {
    "ddpm": ddpm,
    "ddim": ddim,
    "dpm-solver++": dpm_solver,
    "sde-dpm-solver++": dpm_solver_sde,
    "unipc": unipc,
}
ONE_SHOT = "one-shot"  # the estimate of the clean image at the start, one evaluation
SOLVERS = (*DIFFUSION, "euler", ONE_SHOT)


class Solver:
    """The steps from `start` to the clean image. timesteps: `[steps]`, the prior's own, from `start` down.

    Raises UsageError for a solver that does not exist or does not fit the prior (flow matching takes "euler", the
    others do not), a start outside the prior's schedule, and more steps than there are times.
    """

    def __init__(self, prior: Prior, name: str, start: int, steps: int, eta: float = 0.0) -> None:
        if name not in SOLVERS:
            raise unknown("solver", name, SOLVERS)
        if name != ONE_SHOT and (name == "euler") != (prior.kind == "flow"):
            fitting = "euler" if prior.kind == "flow" else ", ".join(DIFFUSION)
            raise UsageError(f"{name} does not fit a prior that estimates {prior.kind}: use {fitting} or {ONE_SHOT}")
        if not 0 <= start < prior.num_timesteps:
            raise UsageError(f"start is a timestep of the prior, 0 to {prior.num_timesteps - 1}, not {start}")
        if not 1 <= steps <= start + 1:
            raise UsageError(f"steps are 1 to start + 1 = {start + 1}, not {steps}")
        if eta and name != "ddim":
            raise UsageError(f"eta belongs to ddim, not to {name}")
        count = 1 if name == ONE_SHOT else steps
        spaced = torch.arange(1, count + 1, dtype=torch.float64) / count * (start + 1)
        ascending = spaced.round().long() - 1
        self.timesteps = ascending.flip(0).to(prior.device)
        self.prior, self.name, self.eta = prior, name, eta
        if name == "euler":
            self.scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=prior.num_timesteps)
            self.scheduler.set_timesteps(sigmas=prior.sigmas[self.timesteps].tolist(), device=prior.device)
        elif name != ONE_SHOT:
            alphas_cumprod = prior.alphas[ascending.to(prior.device)].double().cpu() ** 2
            betas = 1 - alphas_cumprod / torch.cat([alphas_cumprod.new_ones(1), alphas_cumprod[:-1]])
            options = {"trained_betas": betas.numpy(), "num_train_timesteps": count, "prediction_type": "sample"}
            self.scheduler = DIFFUSION[name]({**options, "timestep_spacing": "trailing"})
            self.scheduler.set_timesteps(count, device=prior.device)

    def step(self, index: int, x0: Tensor, x: Tensor, rngs: Sequence[Generator]) -> Tensor:
        """From x at `timesteps[index]` to x at the next, given the estimate of the clean latent; in fp32.

        rngs: one per sample, for the solvers that add noise.
        """
        if self.name == ONE_SHOT:
            return x0
        time = self.scheduler.timesteps[index]
        if self.name == "euler":
            velocity = (x - x0) / self.prior.sigmas[self.timesteps[index]]
            return self.scheduler.step(velocity, time, x).prev_sample
        options: dict[str, Any] = {} if self.name == "unipc" else {"generator": list(rngs)}
        if self.name == "ddim":
            options["eta"] = self.eta
        return self.scheduler.step(x0, time, x, **options).prev_sample
