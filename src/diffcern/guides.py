"""What keeps a purified image near the one that was given: energies per sample, and their gradient.

An energy takes the estimated clean latents and the given ones, each `[B, C, h, w]`, and returns `[B]`: no norm or mean
runs over the batch, and no energy sees a label. Energies add up with weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from diffcern.errors import UsageError
from diffcern.priors.base import Prior
from diffcern.rng import noise_like

Energy = Callable[[Tensor, Tensor], Tensor]
Form = Literal["through", "estimate", "replace"]
FORMS = get_args(Form)
Border = Literal["inside", "zeros"]


@dataclass(frozen=True)
class Guide:
    """sum_i weight_i energy_i, and how a step follows it.

    form: "through" subtracts the gradient in x_t, back-propagated through the denoiser (DDA as published); "estimate"
    the gradient in x0_hat, without a backward pass through the denoiser; "replace" puts the low frequencies of the
    noised image in the place of those of x_t (ILVR, Choi et al. 2021, arXiv 2108.02938), for a low-pass term alone.

    bounded: energies see the estimate kept in [-1, 1] where latents are pixels, as the step does (DDA as published):
    a pixel that is beyond has no gradient. mixed: they see s x0_hat + (1 - s) x_t with s = sigma_t, which is what is
    known at that time; scaled: the gradient is multiplied by the variance of the step (both GDA as published, after
    Dhariwal & Nichol 2021, arXiv 2105.05233, algorithm 1).
    """

    terms: Sequence[tuple[float, Energy]]
    form: Form = "through"
    bounded: bool = False
    mixed: bool = False
    scaled: bool = False

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise UsageError(f"a guide's form is one of {', '.join(FORMS)}, not {self.form!r}")
        if self.form == "replace" and not (len(self.terms) == 1 and isinstance(self.terms[0][1], LowPass)):
            raise UsageError("the form 'replace' takes one low-pass term and no other: leave the others out")
        if not all(math.isfinite(weight) and weight >= 0 for weight, _ in self.terms):
            raise UsageError(f"weights of a guide are finite and at least 0, not {[w for w, _ in self.terms]}")

    @property
    def through(self) -> bool:
        """Whether a step needs a backward pass through the denoiser."""
        return self.form == "through"

    def check(self, prior: Prior) -> None:
        """Raises UsageError where a term looks at pixels and the prior's latents are none, or cannot filter them."""
        for _, energy in self.terms:
            if isinstance(energy, LowPass):
                energy.check(prior.latent_shape[1:])
        needy = [type(energy).__name__ for _, energy in self.terms if getattr(energy, "needs_pixels", False)]
        if needy and not prior.pixels:
            raise UsageError(
                f"{', '.join(needy)} looks at pixels, and the latents of this prior are none: set its weight to 0"
            )

    def gradient(
        self,
        x: Tensor,
        x0: Tensor,
        reference: Tensor,
        *,
        sigma: float = 1.0,
        variance: float = 1.0,
        pixels: bool = False,
    ) -> Tensor:
        """What to subtract from the next x: d (sum of energies) / d x_t, or / d x0_hat. `[B, C, h, w]`.

        sigma: of x_t; variance: of the step from it; pixels: whether latents are pixels.
        """
        if self.form == "replace":
            return torch.zeros_like(x)
        with torch.enable_grad():
            at = x if self.through else x0.detach().requires_grad_()
            seen = x0 if self.through else at
            if self.bounded and pixels:
                seen = seen.clamp(-1, 1)
            if self.mixed:
                seen = sigma * seen + (1 - sigma) * (x if self.through else x.detach())
            total = torch.stack([weight * energy(seen, reference) for weight, energy in self.terms]).sum()
            gradient = torch.autograd.grad(total, at)[0].detach()
        return variance * gradient if self.scaled else gradient

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
def low_pass_matrix(size: int, factor: int, border: Border = "inside") -> Tensor:
    """Averaging down by `factor` and back up, both bicubic, along one side: `[size, size]` (it is linear).

    border: at the ends of the side, weights of pixels "inside" only, which sum to 1 (as Pillow and torch have it), or
    "zeros" beyond (as the published filter of DDA has it): there the picture fades, the same in both of its arguments.
    """
    small = max(1, size // factor)
    margin = 0 if border == "inside" else 2  # small pixels: as far as a bicubic filter reaches
    padding = (0, 0, margin * factor, margin * factor)
    padded = F.pad(torch.eye(size), padding)[None, None]
    down = _resized(padded, small + 2 * margin, size)[..., margin : margin + small, :]
    up = _resized(F.pad(down, (0, 0, margin, margin)), size + 2 * margin * factor, size)
    return up[0, 0, margin * factor : margin * factor + size]


def _resized(matrix: Tensor, rows: int, columns: int) -> Tensor:
    return F.interpolate(matrix, (rows, columns), mode="bicubic", antialias=True)


@dataclass(frozen=True)
class LowPass:
    """|| Phi(x) - Phi(x0_hat) ||_2 with Phi: down by `factor` and up again (DDA, arXiv 2207.03442, eq. 5).

    border: see `low_pass_matrix`.
    """

    factor: int = 4
    border: Border = "inside"

    def __call__(self, x0: Tensor, reference: Tensor) -> Tensor:
        difference = self.filter(reference - x0).flatten(1)
        return difference.square().sum(1).clamp(min=1e-12).sqrt()  # a norm has no gradient at 0

    def check(self, shape: Sequence[int]) -> None:
        """Raises UsageError for zeros around latents whose sides are no multiples of the factor."""
        if self.border == "zeros" and any(size % self.factor for size in shape):
            raise UsageError(
                f"the border of zeros needs sides that are multiples of the factor {self.factor}, not {list(shape)}: "
                "give another factor, or border=inside"
            )

    def filter(self, x: Tensor) -> Tensor:
        """Phi(x), `[B, C, h, w]`."""
        height, width = (low_pass_matrix(size, self.factor, self.border).to(x) for size in x.shape[-2:])
        return height @ x @ width.T


def mean_square(x0: Tensor, reference: Tensor) -> Tensor:
    """mean (x - x0_hat)^2 (GDA's content term in pixels, arXiv 2404.00095)."""
    return (reference - x0).square().flatten(1).mean(1)
