"""A prior whose optimal denoiser is a formula: a mixture of Gaussians, one per class.

The ground truth of the tests and a playground without any network. Class k is N(mu_k, s^2 I); a condition c on the
simplex is the mixture sum_k c_k N(mu_k, s^2 I), so that with the log-SNR falling linearly in t the eps-weighted
denoising error *is* the likelihood (Kong et al. 2023, arXiv 2302.03792):

    -log p(x | c) = (Lambda / 2) D E_{t, eps}[mean_pixels (eps - eps_hat)^2] + const,    Lambda = the log-SNR range
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffcern.priors.base import Prior
from diffcern.priors.schedule import Schedule
from diffcern.resizing import interpolate
from diffcern.types import Condition


class GaussianMixturePrior(Prior):
    """Exact prior over images whose class k is N(means[k], std^2 I), in latent coordinates 2 * image - 1.

    means: `[K, 3, h, w]`; log_snr: (largest, smallest) log SNR of the schedule.
    """

    means: Tensor

    def __init__(
        self,
        means: Tensor,
        std: float = 0.2,
        *,
        log_snr: tuple[float, float] = (14.0, -14.0),
        num_timesteps: int = 1000,
        class_names: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("means", means)
        self.std = std
        self.class_names = class_names or tuple(str(k) for k in range(len(means)))
        self.latent_shape = tuple(means.shape[1:])  # type: ignore[assignment]
        # Midpoints, so that a sum over t is the midpoint rule of the integral over log SNR.
        step = (torch.arange(num_timesteps, dtype=torch.float64) + 0.5) / num_timesteps
        snr = log_snr[0] + (log_snr[1] - log_snr[0]) * step
        self.set_schedule(
            Schedule("eps", torch.sigmoid(snr).sqrt(), torch.sigmoid(-snr).sqrt(), torch.arange(num_timesteps))
        )
        self.log_snr_range = log_snr[0] - log_snr[1]

    def encode(self, images: Tensor) -> Tensor:
        return 2 * interpolate(images, self.latent_shape[1:], "bilinear") - 1

    def decode(self, latents: Tensor) -> Tensor:
        return ((latents + 1) / 2).clamp(0, 1)

    def denoise(self, x_t: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        """eps_hat = (x_t - alpha E[x0 | x_t, c]) / sigma; an empty condition is the uniform mixture."""
        alpha, sigma = (value.flatten()[:, None].to(x_t.dtype) for value in self.alpha_sigma(timesteps))
        x, means = x_t.flatten(1), self.means.flatten(1)
        weights = condition.classes
        if weights is None:
            weights = x.new_full((len(x), len(means)), 1 / len(means))
        variance = alpha**2 * self.std**2 + sigma**2  # of x_t given the class
        distance = (x[:, None] - alpha[..., None] * means).square().sum(-1)  # [B, K]
        # c_k N(x_t; alpha mu_k, variance) relative to the nearest class with c_k > 0; c_k stays outside the
        # logarithm, so that the gradient at c_k = 0 is finite (the clamp keeps it so where k is far nearer).
        nearest = distance.masked_fill(weights <= 0, torch.inf).amin(1, keepdim=True).detach()
        relative = torch.exp(((nearest - distance) / (2 * variance)).clamp(max=60.0))
        joint = weights * relative
        responsibility = joint / joint.sum(1, keepdim=True)
        shrink = alpha * self.std**2 / variance
        mean = responsibility @ means
        x0 = mean + shrink * (x - alpha * mean)
        return ((x - alpha * x0) / sigma).view_as(x_t)

    def log_likelihood(self, latents: Tensor) -> Tensor:
        """log p(x | class k), `[B, K]`, by the formula."""
        x, means = latents.flatten(1), self.means.flatten(1)
        distance = (x[:, None] - means).square().sum(-1)
        return -0.5 * distance / self.std**2 - x.shape[1] * (math.log(self.std) + 0.5 * math.log(2 * math.pi))
