"""How much each noise level counts in a denoising error.

Every weighting is written relative to the eps-space error, w(t) * ||eps - eps_hat||^2, because the errors of all
prediction kinds are multiples of it: with x_t = alpha x0 + sigma eps and signal-to-noise ratio SNR = alpha^2 / sigma^2,

    ||x0 - x0_hat||^2 = (sigma / alpha)^2         ||eps - eps_hat||^2
    ||v  - v_hat ||^2 = (1 / alpha)^2             ||eps - eps_hat||^2      (alpha^2 + sigma^2 = 1)
    ||u  - u_hat ||^2 = ((alpha + sigma)/alpha)^2 ||eps - eps_hat||^2      (flow, u = eps - x0)
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffcern.errors import unknown

Weighting = Callable[[Tensor, Tensor, Tensor], Tensor]  # (alpha, sigma, time in [0, 1]) -> w, all fp32 [...]


def eps(alpha: Tensor, sigma: Tensor, time: Tensor) -> Tensor:
    """w = 1: listens to all noise levels alike (Diffusion Classifier, Diffusion-TTA)."""
    return torch.ones_like(alpha)


def x0(alpha: Tensor, sigma: Tensor, time: Tensor) -> Tensor:
    """w = 1 / SNR: the error on the clean image; listens to the coarse content at large t."""
    return (sigma / alpha) ** 2


def v(alpha: Tensor, sigma: Tensor, time: Tensor) -> Tensor:
    """w = 1 / alpha^2 = 1 + 1 / SNR: the error on the velocity v = alpha eps - sigma x0 (Salimans & Ho 2022)."""
    return alpha**-2


def flow(alpha: Tensor, sigma: Tensor, time: Tensor) -> Tensor:
    """The error on the straight velocity eps - x0 (flow matching)."""
    return ((alpha + sigma) / alpha) ** 2


def min_snr(alpha: Tensor, sigma: Tensor, time: Tensor) -> Tensor:
    """w = min(SNR, 5) / SNR (Hang et al. 2023, gamma = 5): x0 error where noise dominates, capped near clean."""
    snr = (alpha / sigma) ** 2
    return snr.clamp(max=5.0) / snr


def exp7(alpha: Tensor, sigma: Tensor, time: Tensor) -> Tensor:
    """exp(-7 t) on the x0 error, t in [0, 1] (Clark & Jaini 2023)."""
    return torch.exp(-7.0 * time) * x0(alpha, sigma, time)


WEIGHTINGS: dict[str, Weighting] = {
    "eps": eps,
    "x0": x0,
    "v": v,
    "flow": flow,
    "min-snr": min_snr,
    "exp-7t": exp7,
}


def weighting(name: str) -> Weighting:
    """The weighting of that name. Raises UsageError listing what exists."""
    if name not in WEIGHTINGS:
        raise unknown("weighting", name, WEIGHTINGS)
    return WEIGHTINGS[name]


def ratio(wanted: str, given: str, alpha: Tensor, sigma: Tensor, time: Tensor) -> Tensor:
    """What turns an error under the weighting `given` into one under `wanted`; exactly 1 where they are the same.

    Flow matching and zero-terminal-SNR schedules end at alpha = 0, where weightings are infinite and ratios finite.
    """
    if wanted == given:
        return torch.ones_like(alpha)
    alpha = alpha.clamp(min=1e-6)
    return weighting(wanted)(alpha, sigma, time) / weighting(given)(alpha, sigma, time)
