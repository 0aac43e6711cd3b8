"""The loss that priors are trained on: noisy latents, denoised and compared.

L = E_{t, eps} w(t) ||target - network(x_t, t, c)||^2
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diffcern.likelihood import denoising_error
from diffcern.priors.base import Prior
from diffcern.types import Condition


def uniform(u: Tensor) -> Tensor:
    """All noise levels alike."""
    return u


def logit_normal(u: Tensor) -> Tensor:
    """t = sigmoid(z), z ~ N(0, 1): mostly the levels in the middle (Esser et al. 2024, arXiv 2403.03206)."""
    return torch.special.ndtri(u.double().clamp(1e-6, 1 - 1e-6)).sigmoid().float()


TIMES: dict[str, Callable[[Tensor], Tensor]] = {"uniform": uniform, "logit-normal": logit_normal}


@dataclass(frozen=True)
class Noised:
    """Latents and noise, `[B, C, h, w]`, at each row's timestep, `[B]`; time: t / T in [0, 1]."""

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    time: Tensor

    def __getitem__(self, rows: Tensor) -> Noised:
        return Noised(self.latents[rows], self.noise[rows], self.timesteps[rows], self.time[rows])


def noised(prior: Prior, latents: Tensor, rng: torch.Generator, times: str = "uniform") -> Noised:
    """Times and noise from `rng`, the times stratified over the batch: the same expectation, less variance."""
    u = (torch.arange(len(latents)) + torch.rand(len(latents), generator=rng)) / len(latents)
    time = TIMES[times](u)
    timesteps = (time * prior.num_timesteps).long().clamp(max=prior.num_timesteps - 1).to(prior.device)
    noise = torch.randn(latents.shape, generator=rng).to(prior.device)
    return Noised(latents, noise, timesteps, time.float().to(prior.device))


def denoising_errors(
    prior: Prior, rows: Noised, condition: Condition, weightings: tuple[str, ...], autocast: bool
) -> list[Tensor]:
    """The errors `[B]` of one pass through the network, under each weighting."""
    x_t = prior.add_noise(rows.latents, rows.timesteps, rows.noise)
    with torch.autocast(prior.device.type, torch.bfloat16, enabled=autocast):
        denoised = prior(x_t, rows.timesteps, condition)
    return [denoising_error(denoised, rows.latents, rows.noise, rows.time, weighting) for weighting in weightings]


def denoising_loss(
    prior: Prior, latents: Tensor, condition: Condition, weighting: str, rng: torch.Generator, autocast: bool
) -> Tensor:
    """The mean denoising error of latents `[B, C, h, w]` under B rows of the condition, times and noise from `rng`."""
    (errors,) = denoising_errors(prior, noised(prior, latents, rng), condition, (weighting,), autocast)
    return errors.mean()
