"""Into the domain that the prior knows: noise to a time t*, denoise back, guided or not; and samples from noise.

    x_t* = alpha x + sigma eps        x_{t-1} = solver(x_t, x0_hat(x_t, t, c)) - grad E(x0_hat, x)

Every image has its own random numbers, keyed by (seed, id), and its own energy: its result does not depend on the
batch it came in. Knows nothing about predictors, methods or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from diffcern.errors import DiffcernError, UsageError
from diffcern.guides import Guide
from diffcern.priors.base import Prior, check_rows
from diffcern.rng import generator, noise_like
from diffcern.solvers import Solver
from diffcern.types import Condition, Latents
from diffcern.watching import Interim, on_the_way


def purify(
    prior: Prior,
    latents: Latents,
    ids: Sequence[str],
    *,
    start: int,
    steps: int,
    solver: str = "ddpm",
    guide: Guide | None = None,
    condition: Condition | None = None,
    eta: float = 0.0,
    clip: bool = True,
    noise: float = 0.0,
    seed: int = 0,
    rows: int = 64,
    differentiable: bool = False,
) -> Latents:
    """Latents noised to timestep `start` and denoised in `steps` steps, fp32.

    noise: standard deviation of white noise that is in the latents already: so much less is added.

    solver: one of `solvers.SOLVERS`; eta is DDIM's. guide: keeps the result near the latents that were given. clip:
    keep estimates of the clean latent in [-1, 1] where latents are pixels.
    condition: B rows; None is unconditional. rows: images at a time. differentiable: keep the graph from the latents to
    the result, through every step; of each evaluation only the latent that went in is kept, and the rest computed
    again for the gradient (Chen et al. 2016, arXiv 1604.06174). Raises UsageError for settings that do not fit the
    prior and for a guide that would have to be differentiated, DiffcernError where a latent becomes NaN or infinite.
    """
    if len(ids) != len(latents):
        raise UsageError(f"one id for each latent: {len(latents)} latents, {len(ids)} ids")
    told = Condition() if condition is None else condition
    check_rows(told, len(latents))
    if guide is not None:
        guide.check(prior)
        if differentiable:
            raise UsageError("a guide's step is a gradient itself, and is not differentiated: leave the guide out")
    kept = partial(checkpoint, estimate, use_reentrant=False, preserve_rng_state=False)
    estimated = kept if differentiable else estimate
    through = guide is not None and guide.through
    pieces = []
    for first in range(0, len(latents), rows):
        part = slice(first, first + rows)
        reference = latents[part].float()
        rngs = [generator(seed, "purify", id) for id in ids[part]]
        process = Solver(prior, solver, start, steps, eta)
        x = _noised(prior, reference, process.timesteps[0], noise, rngs)
        for index, t in enumerate(process.timesteps):
            with torch.set_grad_enabled(through or differentiable):
                x = x if differentiable else x.detach().requires_grad_(through)
                x0 = estimated(prior, x, t, told[part])
            at, known = (x, x0) if differentiable else (x.detach(), x0.detach())
            on_the_way(partial(_seen, prior, x0))
            following = process.step(index, bounded(prior, known) if clip else known, at, rngs)
            if guide is not None:
                sigma, variance = prior.sigmas[t].item(), process.variance(index)
                following = following - guide.gradient(
                    x, x0, reference, sigma=sigma, variance=variance, pixels=prior.pixels
                )
                after = process.timesteps[index + 1 : index + 2]
                following = guide.replace(following, reference, prior, after, rngs)
            x = following
        pieces.append(_finite(x, guide is not None))
    return torch.cat(pieces) if pieces else latents.float()


def _seen(prior: Prior, x0: Latents) -> Interim:
    """What the prior sees in the first latent."""
    with torch.no_grad():
        return Interim(image=prior.decode(x0[:1].detach())[0])


def _noised(
    prior: Prior, latents: Latents, t: Int[Tensor, ""], noise: float, rngs: Sequence[torch.Generator]
) -> Latents:
    alpha, sigma = prior.alphas[t], prior.sigmas[t]
    missing = (sigma**2 - (alpha * noise) ** 2).clamp(min=0).sqrt()
    return alpha * latents + missing * noise_like(latents, rngs)


def sample(
    prior: Prior,
    ids: Sequence[str],
    condition: Condition,
    *,
    steps: int,
    solver: str = "ddpm",
    guidance_scale: float = 1.0,
    eta: float = 0.0,
    seed: int = 0,
    rows: int = 64,
) -> Latents:
    """A latent from noise for each id, under its row of the condition, fp32.

    guidance_scale: s in x0_hat(null) + s (x0_hat(condition) - x0_hat(null)), classifier-free guidance (Ho & Salimans
    2022, arXiv 2207.12598); 1 is none. Raises as `purify`.
    """
    check_rows(condition, len(ids))
    pieces = []
    for first in range(0, len(ids), rows):
        part = slice(first, first + rows)
        rngs = [generator(seed, "sample", id) for id in ids[part]]
        process = Solver(prior, solver, prior.num_timesteps - 1, steps, eta)
        x = noise_like(torch.empty(len(rngs), *prior.latent_shape, device=prior.device), rngs)
        for index, t in enumerate(process.timesteps):
            with torch.no_grad():
                x0 = estimate(prior, x, t, condition[part], guidance_scale)
            x = process.step(index, bounded(prior, x0), x, rngs)
        pieces.append(_finite(x))
    return torch.cat(pieces)


def estimate(
    prior: Prior, x: Latents, t: Int[Tensor, ""], condition: Condition, guidance_scale: float = 1.0
) -> Latents:
    """The clean latent that the prior sees in x at timestep t.

    Guidance mixes estimates of x0, which at one x_t is the same as mixing estimates of the noise.
    """
    timesteps = t.expand(len(x))
    x0 = prior(x, timesteps, condition).x0
    if guidance_scale != 1:
        null = prior(x, timesteps, Condition()).x0
        x0 = null + guidance_scale * (x0 - null)
    return x0


def bounded(prior: Prior, x0: Latents) -> Latents:
    """The estimate kept in [-1, 1] where latents are pixels."""
    return x0.clamp(-1, 1) if prior.pixels else x0


def _finite(latents: Latents, guided: bool = False) -> Latents:
    if not torch.isfinite(latents).all():
        remedy = "lower the guide's weight, or use fp32 or bf16" if guided else "use fp32 or bf16, or another solver"
        raise DiffcernError(f"a purified latent is NaN or infinite: {remedy}")
    return latents
