"""How likely an image is to a prior, in nats: the evidence lower bound of the prior's own noise schedule.

    log p(x | c) >= - 1/2 int_{t0}^{1} (- d lambda / dt)  E_eps || eps - eps_hat(x_t, t, c) ||^2 dt
                    - KL(q(x_1 | x), N(0, I))  -  D / 2 (1 + log 2 pi - lambda(t0)),        lambda = log SNR

(Kingma et al. 2021, arXiv 2107.00630, eq. 15, with a Gaussian decoder at t0: x is read off x_t0 as x_t0 / alpha with
its noise.) Squares are sums over all D numbers of the latent. With times drawn evenly in lambda the integral is their
range times the mean error.

An image with white noise of deviation n in it is likely not as x but as x_t0, the one level whose noise is its own:
alpha x + s eps, with s^2 = sigma^2 - alpha^2 n^2, is a fair x_t of every later level, the chain that starts at t0 has
the SNR alpha^2 / s^2 in the place of alpha^2 / sigma^2, and its noise is predicted by s / sigma eps_hat. With times
still drawn evenly in lambda,

    (- d lambda / dt) alpha^2 / sigma^2  E_eps || n^2 (alpha / s) eps - (x - x_hat(alpha x + s eps, t, c)) ||^2

What two images share cancels in a difference; a transformation g adds log |det J_g|, or
the flattest picture wins.

Is it a likelihood? Of the latent, in units of the latent: a bound, whatever the network is. Of the pixels where latents
are pixels (up to D log 2 for 2 x - 1). Where they are an autoencoder's, the encoder's own Jacobian is missing: there
compare conditions of one image, or images under the same noise with low well above 0, and call it no likelihood.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float32, Float64, Int
from torch import Tensor

from diffcern.draws import Draws, draw
from diffcern.errors import DiffcernError, UsageError
from diffcern.priors.base import Prior, check_rows
from diffcern.types import Condition, Latents

FINE = 2**20  # steps of [0, 1), in which draws are made before they are mapped to times
FLOOR = 1e-6  # of the SNR, where a schedule ends in pure noise


@dataclass(frozen=True)
class Evidence:
    """per_draw: what each draw says of the bound; nats: their mean. timesteps: at which each was made."""

    per_draw: Float64[Tensor, "batch draws"]
    timesteps: Int[Tensor, "batch draws"]

    @property
    def nats(self) -> Float64[Tensor, " batch"]:
        return self.per_draw.mean(1)

    @property
    def standard_error(self) -> Float64[Tensor, " batch"]:
        """Draws cover the times evenly, so that only what differs between neighbours is noise: from successive
        differences (von Neumann 1941; of systematic samples Wolter 2007, chapter 8)."""
        steps = self.per_draw.gather(1, self.timesteps.argsort(dim=1, stable=True)).diff(dim=1)
        count = self.per_draw.shape[1]
        return (steps.square().sum(1) / (2 * (count - 1) * count)).sqrt()

    def __getitem__(self, rows: slice) -> Evidence:
        """Of these latents."""
        return Evidence(self.per_draw[rows], self.timesteps[rows])

    def over(self, other: Evidence) -> Evidence:
        """By how much more likely, draw by draw: both of the same ids, seed and low."""
        return Evidence(self.per_draw - other.per_draw, self.timesteps)


def evidence(
    prior: Prior,
    latents: Latents,
    ids: Sequence[str],
    *,
    condition: Condition | None = None,
    draws: int = 32,
    low: float = 0.0,
    noise: float = 0.0,
    strategy: str = "stratified",
    seed: int = 0,
    rows: int = 256,
) -> Evidence:
    """The bound of each latent, in nats of the latent's own units.

    low: t0 as a part of [0, 1]; detail finer than its noise is not looked at. condition: a row for each latent; none is
    the unconditional prior. Draws are keyed by (seed, id): candidates that stand for one image get its id, and meet the
    same noise. Raises UsageError for a low outside of [0, 1) or without two timesteps above it, and for fewer than two
    draws.
    """
    if draws < 2:
        raise UsageError(f"evidence is of two draws or more, not {draws}: one has no standard error")
    chosen = at_levels(prior, points(latents, ids, draws, strategy=strategy, seed=seed), [low] * len(latents))
    return evidence_at(prior, latents, chosen, low=low, noise=noise, condition=condition, rows=rows, steadied=True)


def points(latents: Latents, ids: Sequence[str], count: int, *, strategy: str = "stratified", seed: int = 0) -> Draws:
    """Noises, and for each a point of [0, 1) in steps of 1 / `FINE`: `at_levels` makes times of them."""
    return draw(strategy, count, latents, ids, seed=seed, num_timesteps=FINE)


def at_levels(prior: Prior, drawn: Draws, low: Sequence[float], part: float = 1.0) -> Draws:
    """For each latent the points, evenly in log SNR, as times from its own low upwards. drawn: of each, or of one
    image that all of them stand for. part: of the range of log SNR above low, for differences that hardly go on
    beyond. Raises UsageError as `evidence`."""
    for each in low:
        if not 0 <= each < 1 or prior.num_timesteps - int(each * prior.num_timesteps) < 2:
            raise UsageError(f"low is a part of the times, from 0 to below 1, with two timesteps above it, not {each}")
    log_snr, first = _log_snr(prior), [int(each * prior.num_timesteps) for each in low]
    u = (part * (drawn.timesteps.cpu().double() + 0.5) / FINE).expand(len(low), -1)
    timesteps = torch.stack([t + _evenly(log_snr[t:], row) for t, row in zip(first, u, strict=True)])
    noise = drawn.noise.expand(len(low), *drawn.noise.shape[1:])
    return Draws(timesteps.to(noise.device), noise)


def evidence_at(
    prior: Prior,
    latents: Latents,
    draws: Draws,
    *,
    low: float | Sequence[float],
    noise: float | Sequence[float] = 0.0,
    condition: Condition | None = None,
    rows: int = 256,
    steadied: bool = False,
    part: float = 1.0,
) -> Evidence:
    """What single draws of `at_levels` say: for races, which want some of them.

    low: of all or of each, as the draws have it. noise: standard deviation of white noise that is in the latents
    already, of all or of each; see the module. part: as in `at_levels`, what lies beyond is left out. Raises UsageError
    where the noise is as loud as the schedule's at `low`.
    """
    told = Condition() if condition is None else condition
    check_rows(told, len(latents))
    own = torch.as_tensor(noise, dtype=torch.float32, device=latents.device).expand(len(latents))
    lows = [low] * len(latents) if isinstance(low, float | int) else low
    log_snr = _log_snr(prior)
    first = log_snr[[int(each * prior.num_timesteps) for each in lows]]
    quieter = 1 - first.exp() * own.double().cpu() ** 2  # the part of the schedule's noise that is not there yet
    if quieter.min() <= 0:
        at = int(quieter.argmin())
        raise UsageError(
            f"noise of {own[at]:.3g} in the latents is louder than the schedule's at low = {lows[at]}: give a higher "
            "low"
        )
    errors = torch.empty(draws.timesteps.shape, dtype=torch.float64)
    index = torch.arange(errors.numel(), device=latents.device)
    for some in index.split(rows):
        b, m = some // draws.count, some % draws.count
        found = _errors(prior, latents[b], draws.timesteps[b, m], draws.noise[b, m], own[b], told[b])
        errors.view(-1)[some.cpu()] = found.double().cpu()
    if steadied:
        errors = _steadied(errors, draws.noise, draws.timesteps.cpu())
    reach = part * (first - log_snr[-1])[:, None]
    return Evidence(
        -reach / 2 * latents[0].numel() * errors - _ends(prior, latents, first - quieter.log()), draws.timesteps.cpu()
    )


@torch.no_grad()
def _errors(
    prior: Prior,
    latents: Latents,
    timesteps: Int[Tensor, " asked"],
    noise: Latents,
    own: Float32[Tensor, " asked"],
    condition: Condition,
) -> Float32[Tensor, " asked"]:
    """alpha^2 / sigma^2 times the mean square of n^2 (alpha / s) eps - (x - x_hat); n: own."""
    alpha, sigma = prior.alpha_sigma(timesteps)
    quieter = (sigma**2 - (alpha * own.view(-1, 1, 1, 1)) ** 2).sqrt()
    denoised = prior(alpha * latents.float() + quieter * noise.float(), timesteps, condition)
    expected = own.view(-1, 1, 1, 1) ** 2 * alpha / quieter * noise.float()
    errors = (alpha / sigma * (expected - (latents.float() - denoised.x0))).flatten(1).square().mean(1)
    if not torch.isfinite(errors).all():
        raise DiffcernError("the denoising error is NaN or infinite: check the images and the prior's weights")
    return errors


def check_pixels(prior: Prior) -> None:
    """Raises UsageError for a prior whose latents are an autoencoder's: they have no likelihood of images."""
    if getattr(prior, "autoencoder", None) is not None:
        raise UsageError(
            "views and noise levels are told by a prior of pixels: an autoencoder's latents have no likelihood of "
            "images"
        )


def _log_snr(prior: Prior) -> Float64[Tensor, " timesteps"]:
    ratio = prior.alphas.double().cpu() / prior.sigmas.double().cpu()
    return ratio.square().clamp(min=FLOOR).log()


def _evenly(log_snr: Float64[Tensor, " levels"], u: Float64[Tensor, "batch draws"]) -> Int[Tensor, "batch draws"]:
    """The timestep, counted from the first level, whose log SNR is nearest to the point u of its range."""
    wanted = log_snr[0] + u * (log_snr[-1] - log_snr[0])
    between = (log_snr[:-1] + log_snr[1:]) / 2  # falling
    return torch.searchsorted(-between.contiguous(), -wanted)


def _steadied(
    errors: Float64[Tensor, "batch draws"],
    noise: Float32[Tensor, "batch draws channels rows columns"],
    timesteps: Int[Tensor, "batch draws"],
) -> Float64[Tensor, "batch draws"]:
    """The errors without what the noise's own length adds to them, whose mean is known to be 1 (a control variate).

    Of detail that no denoiser can tell the error is the noise's square itself, elsewhere a share of it: as much as the
    mean of the two neighbours in time, which know nothing of this noise, so that the mean stays what it is.
    """
    order = timesteps.argsort(dim=1, stable=True)
    sorted_errors = errors.gather(1, order)
    before, after = sorted_errors.roll(1, 1), sorted_errors.roll(-1, 1)
    before[:, 0], after[:, -1] = after[:, 0], before[:, -1]
    share = torch.empty_like(errors).scatter(1, order, (before + after) / 2)
    return errors - share * (noise.flatten(2).double().square().mean(2).cpu() - 1)


def _ends(prior: Prior, latents: Latents, log_snr: Float64[Tensor, " batch"]) -> Float64[Tensor, "batch 1"]:
    """What is lost at the two ends of the chain: reading x off x_t0, and x_1 being not quite pure noise."""
    alpha, sigma = prior.alphas[-1].double().item(), prior.sigmas[-1].double().item()
    square = latents.flatten(1).double().square().sum(1, keepdim=True).cpu()
    size = latents[0].numel()
    last = (alpha**2 * square + size * (sigma**2 - 1 - 2 * math.log(sigma))) / 2
    return last + size / 2 * (1 + math.log(2 * math.pi) - log_snr[:, None])
