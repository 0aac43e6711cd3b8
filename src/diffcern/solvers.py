"""How a reverse process is integrated: diffusers' schedulers by name, respaced so that they start where they are told.

The schedule is cut to `steps` times from `start` down to 0 (as Nichol & Dhariwal 2021, arXiv 2102.09672, respace
theirs), and a scheduler is built whose training steps are these. It takes unit steps only, so that the index which an
image is noised to is the index which it is denoised from, whatever the solver's own rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from diffcern.errors import UsageError, unknown
from diffcern.priors.base import Prior
from diffcern.rng import noise_like


def ddpm(options: dict[str, Any]) -> Any:
    """Ancestral sampling (Ho et al. 2020)."""
    from diffusers import DDPMScheduler

    return DDPMScheduler(**options, clip_sample=False)


def ddim(options: dict[str, Any]) -> Any:
    """Song et al. 2021; eta 0 is deterministic, 1 ancestral."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(**options, clip_sample=False)


def dpm_solver(options: dict[str, Any]) -> Any:
    """DPM-Solver++ (2M), deterministic (Lu et al. 2022, arXiv 2211.01095)."""
    from diffusers import DPMSolverMultistepScheduler

    return DPMSolverMultistepScheduler(**options, algorithm_type="dpmsolver++")


def dpm_solver_sde(options: dict[str, Any]) -> Any:
    """SDE-DPM-Solver++ (2M)."""
    from diffusers import DPMSolverMultistepScheduler

    return DPMSolverMultistepScheduler(**options, algorithm_type="sde-dpmsolver++")


def unipc(options: dict[str, Any]) -> Any:
    """UniPC (Zhao et al. 2023, arXiv 2302.04867), deterministic."""
    from diffusers import UniPCMultistepScheduler

    return UniPCMultistepScheduler(**options)


DIFFUSION: dict[str, Callable[[dict[str, Any]], Any]] = {
    "ddpm": ddpm,
    "ddim": ddim,
    "dpm-solver++": dpm_solver,
    "sde-dpm-solver++": dpm_solver_sde,
    "unipc": unipc,
}
ONE_SHOT = "one-shot"  # the estimate of the clean image at the start, one evaluation
REVERSE_SDE = "reverse-sde"  # Euler-Maruyama steps of the reverse SDE (Song et al. 2021, arXiv 2011.13456)
SOLVERS = (*DIFFUSION, REVERSE_SDE, "euler", ONE_SHOT)
LOG_SNR = ("dpm-solver++", "sde-dpm-solver++", "unipc")  # integrate over the log-SNR
# What these are told is left of the image where nothing is (zero terminal SNR), as alpha^2: every log-SNR is finite
# then, and the pure noise that they begin with the same to fp32. diffusers takes this number too.
NOTHING = 2.0**-24
ALMOST = 1 - 1e-6  # DDIM's eta of 1 leaves the root of 0 to rounding where a step comes from (almost) pure noise


def usual_solver(prior: Prior) -> str:
    """The deterministic one that fits the prior: Euler's steps along a flow, else DDIM."""
    return "euler" if prior.kind == "flow" else "ddim"


class Solver:
    """The steps from `start` to the clean image. timesteps: `[steps]`, the prior's own, from `start` down.

    Raises UsageError for a solver that does not exist or does not fit the prior (flow matching takes "euler", the
    others do not), a start outside the prior's schedule or at pure noise for a prior that estimates noise, more steps
    than there are times, and an eta outside [0, 1].
    """

    def __init__(self, prior: Prior, name: str, start: int, steps: int, eta: float = 0.0) -> None:
        if name not in SOLVERS:
            raise unknown("solver", name, SOLVERS)
        if name != ONE_SHOT and (name == "euler") != (prior.kind == "flow"):
            fitting = "euler" if prior.kind == "flow" else ", ".join((*DIFFUSION, REVERSE_SDE))
            raise UsageError(f"{name} does not fit a prior that estimates {prior.kind}: use {fitting} or {ONE_SHOT}")
        if not 0 <= start < prior.num_timesteps:
            raise UsageError(f"start is a timestep of the prior, 0 to {prior.num_timesteps - 1}, not {start}")
        if prior.kind == "eps" and not prior.alphas[start] > 0:
            raise UsageError(
                f"at timestep {start} nothing is left of the image, and an estimate of the noise says nothing about "
                f"it: start at {start - 1} or below"
            )
        if not 1 <= steps <= start + 1:
            raise UsageError(f"steps are 1 to start + 1 = {start + 1}, not {steps}")
        if not 0 <= eta <= 1:
            raise UsageError(f"eta is 0 (deterministic) to 1 (ancestral), not {eta}")
        if eta and name != "ddim":
            raise UsageError(f"eta belongs to ddim, not to {name}")
        count = 1 if name == ONE_SHOT else steps
        spaced = torch.arange(1, count + 1, dtype=torch.float64) / count * (start + 1)
        ascending = spaced.round().long() - 1
        self.timesteps = ascending.flip(0).to(prior.device)
        self.prior, self.name, self.eta = prior, name, eta
        if name == "euler":
            from diffusers import FlowMatchEulerDiscreteScheduler

            self.scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=prior.num_timesteps)
            self.scheduler.set_timesteps(sigmas=prior.sigmas[self.timesteps].tolist(), device=prior.device)
            return
        alphas_cumprod = prior.alphas[ascending.to(prior.device)].double().cpu() ** 2
        before = torch.cat([alphas_cumprod.new_ones(1), alphas_cumprod[:-1]])
        if name in LOG_SNR and alphas_cumprod[-1] == 0:
            alphas_cumprod[-1] = min(NOTHING, before[-1].item() / 4)  # still less than a step earlier
        self.betas = 1 - alphas_cumprod / before
        self.posterior = self.betas * (1 - before) / (1 - alphas_cumprod)
        if name in DIFFUSION:
            options = {"trained_betas": self.betas.numpy(), "num_train_timesteps": count, "prediction_type": "sample"}
            self.scheduler = DIFFUSION[name]({**options, "timestep_spacing": "trailing"})
            self.scheduler.set_timesteps(count, device=prior.device)

    def step(self, index: int, x0: Tensor, x: Tensor, rngs: Sequence[Generator]) -> Tensor:
        """From x at `timesteps[index]` to x at the next, given the estimate of the clean latent; in fp32.

        rngs: one per sample, for the solvers that add noise.
        """
        if self.name == ONE_SHOT:
            return x0
        if self.name == REVERSE_SDE:
            return self._reverse_sde(index, x0, x, rngs)
        time = self.scheduler.timesteps[index]
        if self.name == "euler":
            velocity = (x - x0) / self.prior.sigmas[self.timesteps[index]]
            return self.scheduler.step(velocity, time, x).prev_sample
        options: dict[str, Any] = {} if self.name == "unipc" else {"generator": list(rngs)}
        if self.name == "ddim":
            options["eta"] = min(self.eta, ALMOST)
        return self.scheduler.step(x0, time, x, **options).prev_sample

    def variance(self, index: int) -> float:
        """Of x at the next time given x at `timesteps[index]` and the clean image (Ho et al. 2020, eq. 7).

        That of the last step, which would be 0, is the one before it, as published by guided diffusion. 0 for "euler".
        """
        if self.name == "euler":
            return 0.0
        at = len(self.timesteps) - 1 - index
        values = self.posterior if len(self.posterior) > 1 else self.betas
        return values[max(at, 1) if len(values) > 1 else 0].item()

    def _reverse_sde(self, index: int, x0: Tensor, x: Tensor, rngs: Sequence[Generator]) -> Tensor:
        """x + b x / 2 + b s(x) + sqrt(b) z with b the beta of the step and the score s = (alpha x0 - x) / sigma^2."""
        b, t = self.betas[len(self.timesteps) - 1 - index].item(), self.timesteps[index]
        score = (self.prior.alphas[t] * x0 - x) / self.prior.sigmas[t] ** 2
        return x + b * (x / 2 + score) + b**0.5 * noise_like(x, rngs)
