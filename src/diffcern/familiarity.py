"""Does an image look like what the prior was trained on? Its denoising error beside those of clean images.

    e(z) = E_{t, eps} min(1, 5 / SNR) || eps - eps_hat(alpha z + sigma eps, t, c) ||^2

The min-SNR weighting (Hang et al. 2023) sees content and texture alike, where w = 1 sees fine noise alone and the
x0 weighting coarse content alone. A prior keeps the percentiles of e over clean images, see `clean_errors`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diffcern.draws import Draws, draw
from diffcern.errors import UsageError
from diffcern.likelihood import score
from diffcern.priors.base import Prior
from diffcern.types import Condition, Latents
from diffcern.weightings import ratio

DRAWS = 16  # per image; stratified


def strangeness(prior: Prior, losses: Tensor, draws: Draws, weighting: str) -> Tensor:
    """e of each image, `[B]`, from its denoising errors `[B, M]` under any weighting: no further evaluations."""
    alpha, sigma = prior.alphas[draws.timesteps], prior.sigmas[draws.timesteps]
    time = draws.timesteps / prior.num_timesteps
    return (losses * ratio("min-snr", weighting, alpha, sigma, time)).mean(1)


def asked_strangeness(
    prior: Prior, latents: Latents, condition: Condition, ids: Sequence[str], seed: int = 0, rows: int = 256
) -> Tensor:
    """e of each image under its row of the condition, `[B]`, from `DRAWS` evaluations each, without gradient."""
    draws = draw("stratified", DRAWS, latents, ids, seed=seed, num_timesteps=prior.num_timesteps)
    own = torch.arange(len(latents), device=latents.device)[:, None]
    return score(prior, latents, condition, draws, candidates=own, weighting="min-snr", rows=rows).mean[:, 0]


def clean_errors(prior: Prior, images: Tensor, condition: Condition) -> Tensor:
    """The percentiles 0, 1, ..., 100 of e over clean images, `[101]` fp32 on the CPU.

    images: `[B, 3, H, W]` in [0, 1], as the prior meets them when nothing is wrong; condition: what is true of each.
    """
    latents = prior.encode(images.to(prior.device))
    ids = [str(number) for number in range(len(images))]
    errors = asked_strangeness(prior, latents, condition, ids)
    return errors.cpu().quantile(torch.linspace(0, 1, 101))


def threshold(prior: Prior, share: float) -> float:
    """The error that `share` (0 to 1) of the clean images stay within. Raises UsageError where none is known."""
    if not 0 <= share <= 1:
        raise UsageError(f"familiar is a share of the clean images, 0 to 1, not {share}")
    if prior.clean_errors is None:
        raise UsageError(
            "familiar needs the prior's errors on clean images, which this prior lacks: leave the option out, or set "
            "prior.clean_errors = diffcern.familiarity.clean_errors(prior, images, condition)"
        )
    position = 100 * share
    low = min(int(position), 99)
    first, second = prior.clean_errors[low].item(), prior.clean_errors[low + 1].item()
    return first + (position - low) * (second - first)
