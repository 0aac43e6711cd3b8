"""A prior as classifier: its true class should denoise an image better than another one does.

    L = softplus(-b w LLR)
    LLR = (-d logSNR / dt) / 2 * ( ||eps - eps_hat(x_t, c')||^2 - ||eps - eps_hat(x_t, c)||^2 )

LLR is what the noise level t alone says of log p(x | c) - log p(x | c') (Kingma & Gao 2023, arXiv 2303.00848), with c
the true class and c' a random other at the same (t, eps). It trains what Diffusion Classifier reads; a prior that is
trained with it is not purely generative, and its card says so.

The ratio of one draw is noise above all, of which softplus would count the signs. w(t) = min(SNR, 5) / SNR (min-SNR:
Hang et al. 2023, arXiv 2303.09556) takes away what little noise makes of it, hundreds of nats for 32 x 32 pixels; some
ten nats are left at every t, which a temper b below 1 makes a belief.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from diffcern.priors.base import Prior

STEEPEST = 20.0  # of -d logSNR / dt, t in [0, 1]: both ends of a schedule are steeper, and say little


def evidence_slope(prior: Prior) -> Tensor:
    """-d logSNR / dt at each timestep, `[T]` fp32, at most `STEEPEST`."""
    snr = 2 * (prior.alphas.double().clamp(min=1e-6).log() - prior.sigmas.double().clamp(min=1e-6).log())
    slope = -torch.gradient(snr)[0] * prior.num_timesteps
    return slope.clamp(0, STEEPEST).float()


def other_classes(targets: Tensor, count: int, rng: torch.Generator) -> Tensor:
    """One class for each of `[B]` that is not its own, uniform among the others."""
    steps = torch.randint(1, count, targets.shape, generator=rng)
    return (targets.cpu() + steps).remainder(count).to(targets.device)


def rival_loss(own: Tensor, rival: Tensor, slope: Tensor, pixels: int, temper: float = 1.0) -> Tensor:
    """Of the mean squared errors of each row under its own and under another class, w included, all `[R]`: `[R]`.

    slope: see `evidence_slope`, at the rows' times; pixels: how many values the mean was over.
    """
    return F.softplus(-temper * slope / 2 * pixels * (rival - own))
