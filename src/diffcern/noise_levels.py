"""How much noise an image has in it, told by the prior: the level at which the image is likeliest.

    n* = argmax_n  log p_t(n)(x),        sigma / alpha = n at t(n)        x taken as x_t (see `evidence.py`)

A level that is too low finds noise where the prior expects none, one that is too high misses the noise that it expects.
What a filter finds (`noise_of`) is white noise alone; the prior takes speckles and scratches for noise as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float32
from torch import Tensor

from diffcern.evidence import evidence
from diffcern.priors.base import Prior

LOUDER = 1.4  # times the noise that is in the image, where its levels begin
SOFTEST = 0.1  # of a latent, what is softer is called none
LATEST = 0.8  # part of the times
DRAWS = 4  # of a level
LEVELS = 7  # at most
MOST = LEVELS * DRAWS  # evaluations


@dataclass(frozen=True)
class NoiseLevel:
    """noise: standard deviation in the latent's units, 0 below `SOFTEST`. evaluations: of the denoiser."""

    noise: float
    evaluations: int


@torch.no_grad()
def noise_level(prior: Prior, latent: Tensor, id: str, seed: int = 0) -> NoiseLevel:
    """Of one latent `[1, C, h, w]`: never less than what a filter finds, which few draws tell worse; levels apart by 2
    from there upwards, as long as they grow likelier; then the top of a parabola through the last three, over log n."""
    loudest = noise_at(prior, LATEST) / LOUDER
    filtered = loud_noise(latent)
    if filtered >= loudest:
        return NoiseLevel(loudest, 0)
    how: dict[str, Any] = {"draws": DRAWS, "strategy": "van-der-corput", "seed": seed}
    levels = [filtered or SOFTEST / 2]
    nats: list[float] = []
    while True:
        noise, low = levels[-1], time_of(prior, LOUDER * levels[-1])
        nats.append(evidence(prior, latent, [id + "/noise"], low=low, noise=noise, **how).nats.item())
        if len(nats) == LEVELS or 2 * noise >= loudest or (len(nats) > 1 and nats[-1] < nats[-2]):
            break
        levels.append(2 * noise)
    spent = DRAWS * len(nats)
    if len(nats) == 2 and nats[1] < nats[0]:
        return NoiseLevel(filtered, spent)
    return NoiseLevel(levels[-2] * 2 ** _peak(*nats[-3:]) if len(nats) > 2 else levels[-1], spent)


def _peak(before: float, top: float, after: float) -> float:
    """Where the parabola through three values has its top, from -1 to 1 around the middle one."""
    bend = before - 2 * top + after
    return max(-1.0, min(1.0, (before - after) / (2 * bend))) if bend < 0 else 0.0


def loud_noise(latent: Tensor) -> float:
    """`noise_of`, 0 below `SOFTEST`."""
    noise = noise_of(latent)
    return noise if noise > SOFTEST else 0.0


def noise_of(latent: Tensor) -> float:
    """The deviation of white noise in a latent `[1, C, h, w]`, told from the differences between neighbours along both
    diagonals (Donoho & Johnstone 1994): median |d| = 0.6745 sigma."""
    even = latent[..., : latent.shape[-2] // 2 * 2, : latent.shape[-1] // 2 * 2]
    detail = (even[..., ::2, ::2] - even[..., 1::2, ::2] - even[..., ::2, 1::2] + even[..., 1::2, 1::2]) / 2
    return detail.abs().median().item() / 0.6745


def time_of(prior: Prior, noise: float) -> float:
    """The part of the times at which the schedule's noise is softer than this of a latent, at most `LATEST`."""
    return min(LATEST, (_ratios(prior) < noise).double().mean().item())


def noise_at(prior: Prior, part: float) -> float:
    """The schedule's noise at a part of the times, in units of the latent."""
    return _ratios(prior)[int(part * prior.num_timesteps)].item()


def _ratios(prior: Prior) -> Float32[Tensor, " timesteps"]:
    """sigma / alpha: the schedule's noise in units of the latent."""
    return prior.sigmas / prior.alphas.clamp(min=1e-6)
