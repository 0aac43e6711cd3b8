"""How well a condition explains an image: the denoising error, its mean per hypothesis, its gradient.

    error(z, c; t, eps) = w(t) * mean_pixels (eps - eps_hat(alpha z + sigma eps, t, c))^2

Both functions take their draws from outside, visit them in chunks of `rows` network rows, and reduce in fp32.
Knows nothing about predictors or methods.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from diffcern import weightings
from diffcern.draws import Draws
from diffcern.errors import DiffcernError, UsageError
from diffcern.priors.base import Prior, check_rows
from diffcern.types import Condition, Denoised, Latents


def denoising_error(
    denoised: Denoised,
    latents: Latents,
    noise: Latents,
    time: Float[Tensor, " batch"],
    weighting: str = "eps",
    norm: str = "l2",
) -> Float32[Tensor, " batch"]:
    """Weighted error of one network call.

    The residual is taken in the network's own prediction kind and rescaled by w / w_kind: a round trip through
    another kind would lose digits where alpha or sigma is small. time: t / T in [0, 1]. norm "l1" takes the
    mean absolute residual (times the square root of the ratio), as published for some data sets.
    """
    residual = (denoised.output.float() - denoised.target(latents.float(), noise.float())).flatten(1)
    weight = weight_of(denoised, time, weighting, norm)
    return (residual.abs() if norm == "l1" else residual.square()).mean(1) * weight


def weight_of(
    denoised: Denoised, time: Float[Tensor, " batch"], weighting: str, norm: str
) -> Float32[Tensor, " batch"]:
    """What the residual's norm in the network's own prediction kind is multiplied by."""
    check_norm(norm)
    ratio = weightings.ratio(weighting, denoised.kind, denoised.alpha.flatten(), denoised.sigma.flatten(), time)
    return ratio.sqrt() if norm == "l1" else ratio


def check_norm(norm: str) -> None:
    """Raises UsageError unless norm is one that `denoising_error` knows."""
    if norm not in ("l1", "l2"):
        raise UsageError(f"norm is 'l1' or 'l2', not {norm!r}")


def _errors(
    prior: Prior,
    latents: Latents,
    condition: Condition,
    timesteps: Int[Tensor, " batch"],
    noise: Latents,
    weighting: str,
    norm: str,
    parameters: dict[str, Tensor] | None = None,
) -> tuple[Float32[Tensor, " batch"], Float32[Tensor, " batch"]]:
    """Errors of rows that are already lined up, and what to multiply them by while they are differentiated.

    That is 1, but for float16: the derivative by a pixel of the network's output, weight / pixels times the residual's,
    is often less than float16 holds. There it passes the network without this factor, which the caller applies to what
    comes out, in fp32.
    """
    x_t = prior.add_noise(latents, timesteps, noise)
    if parameters is None:
        denoised = prior(x_t, timesteps, condition)
    else:
        denoised = functional_call(prior, parameters, (x_t, timesteps, condition))
    time = timesteps.float() / prior.num_timesteps
    error = denoising_error(denoised, latents, noise, time, weighting, norm)
    if not torch.isfinite(error).all():
        raise DiffcernError("the denoising error is NaN or infinite: check the images and the prior's weights")
    if denoised.output.dtype != torch.float16:
        return error, torch.ones_like(error)
    return error, latents[0].numel() / weight_of(denoised, time, weighting, norm)


@dataclass(frozen=True)
class Score:
    """Denoising errors per hypothesis: the same draws for all hypotheses of a sample."""

    errors: Float32[Tensor, "batch hypotheses draws"]

    @property
    def mean(self) -> Float32[Tensor, "batch hypotheses"]:
        """The smallest explains the image best."""
        return self.errors.mean(-1)

    @property
    def count(self) -> int:
        return self.errors.shape[-1]

    def margin(self) -> tuple[Float32[Tensor, " batch"], Float32[Tensor, " batch"]]:
        """Mean of (runner-up - best) and its standard error, from paired differences.

        The draws are shared, so that the differences vary far less than the errors themselves.
        """
        order = self.mean.argsort(-1)[:, :2]
        best, second = self.errors.gather(1, order[..., None].expand(-1, -1, self.count)).unbind(1)
        difference = second - best
        return difference.mean(-1), difference.std(-1, correction=1 if self.count > 1 else 0) / self.count**0.5


def check_draws_of(latents: Latents, draws: Draws) -> None:
    """Raises UsageError for draws of other samples: fewer would leave latents out, without a word."""
    if len(draws.timesteps) != len(latents):
        raise UsageError(f"draws for each latent: {len(latents)} latents, draws of {len(draws.timesteps)}")


@torch.no_grad()
def score(
    prior: Prior,
    latents: Latents,
    hypotheses: Condition,
    draws: Draws,
    *,
    candidates: Int[Tensor, "batch candidates"] | None = None,
    weighting: str = "eps",
    norm: str = "l2",
    rows: int = 256,
) -> Score:
    """Denoising error of every hypothesis on every image (Diffusion Classifier, arXiv 2303.16203, eq. 6).

    hypotheses: one condition row each, shared by the images; candidates: indices into them, to score just some of them
    (the errors are then of these). Raises UsageError for draws of other samples.
    """
    check_draws_of(latents, draws)
    batch = len(latents)
    if candidates is None:
        candidates = torch.arange(len(hypotheses), device=latents.device).expand(batch, -1)
    kept, count = candidates.shape[1], draws.count
    index = torch.arange(batch * kept * count, device=latents.device)
    b, k, m = index // (kept * count), index // count % kept, index % count
    asked = (b, candidates[b, k], m)
    errors = errors_of(prior, latents, hypotheses, draws, asked, weighting=weighting, norm=norm, rows=rows)
    return Score(errors.view(batch, kept, count))


def errors_of(
    prior: Prior,
    latents: Latents,
    hypotheses: Condition,
    draws: Draws,
    asked: tuple[Int[Tensor, " asked"], Int[Tensor, " asked"], Int[Tensor, " asked"]],
    *,
    weighting: str = "eps",
    norm: str = "l2",
    rows: int = 256,
    pad: bool = False,
    differentiable: bool = False,
) -> Float32[Tensor, " asked"]:
    """Denoising errors one by one: asked says of which image, under which hypothesis, at which of its draws.

    pad: fills the last chunk up to the next power of two with what is asked anyhow, so that the network meets few
    numbers of rows, however many are asked: what is compiled, or tuned to a shape, is so a few times only.
    differentiable: with a graph back to the latents, of which no more is kept than what goes into the network.
    """
    kept = partial(checkpoint, _errors, use_reentrant=False, preserve_rng_state=False)
    found = kept if differentiable else _errors
    errors, count = [], len(asked[0])
    indices: tuple[Tensor, ...] = asked
    if pad and (last := count % rows):
        more = min(rows, 1 << (last - 1).bit_length()) - last
        indices = tuple(torch.cat([index, index[:1].expand(more)]) for index in asked)
    with torch.set_grad_enabled(differentiable):
        for b, k, m in zip(*(index.split(rows) for index in indices), strict=True):
            times, noise = draws.timesteps[b, m], draws.noise[b, m]
            errors.append(found(prior, latents[b], hypotheses[k], times, noise, weighting, norm)[0])
    return torch.cat(errors)[:count]


@dataclass(frozen=True)
class ConditionGradient:
    """The mean denoising error and its derivative.

    losses: per draw. gradient: d mean-loss / d condition, shaped like the condition.
    per_draw: d loss_m / d condition for each draw, `[B, M, ...]` (its mean over M is `gradient`).
    parameters: d batch-mean-loss / d prior parameter, by name, where asked for.
    """

    losses: Float32[Tensor, "batch draws"]
    gradient: Condition
    per_draw: Condition
    parameters: dict[str, Tensor]

    @property
    def loss(self) -> Float32[Tensor, " batch"]:
        """Mean over the draws."""
        return self.losses.mean(1)


def condition_gradient(
    prior: Prior,
    latents: Latents,
    condition: Condition,
    draws: Draws,
    *,
    weighting: str = "eps",
    norm: str = "l2",
    rows: int = 256,
    parameters: dict[str, Tensor] | None = None,
) -> ConditionGradient:
    """Mean denoising error and d loss / d condition, with the graph cut at the condition.

    latents and condition (a row each) are treated as constants; whoever made the condition back-propagates `gradient`
    through it afterwards, once, whatever the number of draws. Each draw sees a leaf copy of its condition, so the
    per-draw gradients, and with them the sampling noise, come at no extra cost.
    parameters: prior parameters (by name) to differentiate too; none by default, and then no weight gradient is
    computed. Raises UsageError for draws, or a condition, of other samples.
    """
    check_draws_of(latents, draws)
    check_rows(condition, len(latents))
    batch, count = draws.timesteps.shape
    index = torch.arange(batch * count, device=latents.device)
    losses = torch.empty(batch * count, device=latents.device)
    names = list(condition.parts)
    pieces: dict[str, list[Tensor]] = {name: [] for name in names}
    totals = {name: torch.zeros_like(value) for name, value in (parameters or {}).items()}
    leaves = {name: value.detach().requires_grad_() for name, value in (parameters or {}).items()}
    for chunk in index.split(rows):
        b, m = chunk // count, chunk % count
        leaf = condition.map(lambda value, b=b: value.detach()[b].requires_grad_())  # type: ignore[misc]
        with torch.enable_grad():
            error, scale = _errors(
                prior,
                latents[b],
                leaf,
                draws.timesteps[b, m],
                draws.noise[b, m],
                weighting,
                norm,
                leaves or None,
            )
            if not error.requires_grad:
                raise DiffcernError(
                    "the error of this prior has no gradient by the condition: it does not read it. Give "
                    "a prior that does"
                )
            scale = torch.ones_like(scale) if leaves else scale  # whose gradients are sums over rows
            gradients = torch.autograd.grad(
                error, [*leaf.parts.values(), *leaves.values()], scale, materialize_grads=True
            )  # zeros for parts of the network that this condition does not reach
        if not all(torch.isfinite(value).all() for value in gradients):
            raise DiffcernError(
                "the prior's gradient is NaN or infinite: in float16, try bfloat16 or float32; if compiled, no compile"
            )
        losses[chunk] = error.detach()
        for name, value in zip(names, gradients[: len(names)], strict=True):
            pieces[name].append(value.float() / scale.view(-1, *[1] * (value.ndim - 1)))
        for total, value in zip(totals.values(), gradients[len(names) :], strict=True):
            total += value / (batch * count)
    per_draw = Condition(**{name: torch.cat(p).unflatten(0, (batch, count)) for name, p in pieces.items()})
    return ConditionGradient(
        losses=losses.view(batch, count),
        gradient=per_draw.map(lambda value: value.mean(1)),
        per_draw=per_draw,
        parameters=totals,
    )
