"""What keeps a purified image near the one that was given: energies per sample, and their gradient.

An energy takes the estimated clean latents and the given ones, each `[B, C, h, w]`, and returns `[B]`: no norm or mean
runs over the batch, and no energy sees a label. Energies add up with weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from diffcern.errors import UsageError
from diffcern.priors.base import Prior
from diffcern.rng import noise_like

Energy = Callable[[Tensor, Tensor], Tensor]
FORMS = ("through", "estimate", "replace")


@dataclass(frozen=True)
class Guide:
    """sum_i weight_i energy_i, and how a step follows it.

    form: "through" subtracts the gradient in x_t, back-propagated through the denoiser (DDA as published); "estimate"
    the gradient in x0_hat, without a backward pass through the denoiser; "replace" puts the low frequencies of the
    noised image in the place of those of x_t (ILVR, Choi et al. 2021, arXiv 2108.02938), for a low-pass term alone.
    """

    terms: Sequence[tuple[float, Energy]]
    form: str = "through"

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise UsageError(f"a guide's form is one of {', '.join(FORMS)}, not {self.form!r}")
        if self.form == "replace" and not (len(self.terms) == 1 and isinstance(self.terms[0][1], LowPass)):
            raise UsageError("the form 'replace' takes one low-pass term and no other")
        if not all(math.isfinite(weight) and weight >= 0 for weight, _ in self.terms):
            raise UsageError(f"weights of a guide are finite and at least 0, not {[w for w, _ in self.terms]}")

    @property
    def through(self) -> bool:
        """Whether a step needs a backward pass through the denoiser."""
        return self.form == "through"

    def check(self, prior: Prior) -> None:
        """Raises UsageError where a term looks at pixels and the prior's latents are none."""
        needy = [type(energy).__name__ for _, energy in self.terms if getattr(energy, "needs_pixels", False)]
        if needy and not prior.pixels:
            raise UsageError(f"{', '.join(needy)} looks at pixels, and the latents of this prior are none")

    def gradient(self, x: Tensor, x0: Tensor, reference: Tensor) -> Tensor:
        """What to subtract from the next x: d (sum of energies) / d x_t, or / d x0_hat. `[B, C, h, w]`."""
        if self.form == "replace":
            return torch.zeros_like(x)
        with torch.enable_grad():
            at = x if self.through else x0.detach().requires_grad_()
            estimated = x0 if self.through else at
            total = torch.stack([weight * energy(estimated, reference) for weight, energy in self.terms]).sum()
            return torch.autograd.grad(total, at)[0].detach()

    def replace(self, x: Tensor, reference: Tensor, prior: Prior, after: Tensor, rngs: Sequence[Generator]) -> Tensor:
        """x at the next timestep (`after`, empty at the end) with the low frequencies of the image noised to it."""
        if self.form != "replace":
            return x
        weight, low_pass = self.terms[0]
        noised = reference
        if len(after):
            noised = prior.add_noise(reference, after.expand(len(x)), noise_like(x, rngs))
        assert isinstance(low_pass, LowPass)
        return x + min(weight, 1.0) * low_pass.filter(noised - x)


@cache
def low_pass_matrix(size: int, factor: int) -> Tensor:
    """Averaging down by `factor` and back up, both antialiased, along one side: `[size, size]` (it is linear)."""
    identity = torch.eye(size)[None, None]
    down = F.interpolate(identity, (max(1, size // factor), size), mode="bicubic", antialias=True)
    return F.interpolate(down, (size, size), mode="bicubic", antialias=True)[0, 0]


@dataclass(frozen=True)
class LowPass:
    """|| Phi(x) - Phi(x0_hat) ||_2 with Phi: down by `factor` and up again (DDA, arXiv 2207.03442, eq. 5)."""

    factor: int = 4

    def __call__(self, x0: Tensor, reference: Tensor) -> Tensor:
        difference = self.filter(reference - x0).flatten(1)
        return difference.square().sum(1).clamp(min=1e-12).sqrt()  # a norm has no gradient at 0

    def filter(self, x: Tensor) -> Tensor:
        """Phi(x), `[B, C, h, w]`."""
        height, width = (low_pass_matrix(size, self.factor).to(x) for size in x.shape[-2:])
        return height @ x @ width.T


def mean_square(x0: Tensor, reference: Tensor) -> Tensor:
    """mean (x - x0_hat)^2 (GDA's content term in pixels, arXiv 2404.00095)."""
    return (reference - x0).square().flatten(1).mean(1)
