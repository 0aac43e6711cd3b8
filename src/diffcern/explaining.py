"""Why a prior takes an image for one thing rather than another: what it sees under each, and where they differ.

    gap(t, pixel) = residual(told the second)^2 - residual(told the first)^2     its mean: Diffusion Classifier's margin

All conditions are asked with the same times and noises, so that what they share drops out. `Watched` goes draw by draw,
for whoever wants to look on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float32
from scipy.stats import t as student
from torch import Tensor

from diffcern.draws import check_draws, draw
from diffcern.errors import UsageError
from diffcern.likelihood import weight_of
from diffcern.priors import Prior
from diffcern.types import Condition, Latents
from diffcern.weightings import weighting as weighting_named

BANDS = 6  # of noise levels
LOOK = (0.3, 0.7)  # of the times, whose estimates of the clean image are shown
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Band:
    """A part [low, high) of the times: the mean gap there and its interval, None where too few draws fell into it."""

    low: float
    high: float
    gap: float | None
    ends: tuple[float, float] | None
    draws: int


@dataclass(frozen=True)
class Explanation:
    """order: hypotheses, the likeliest first, the best of each owner. errors: denoising errors; times: t / T of each
    draw. seen: the clean image that the prior sees under each, in [0, 1], a mean over draws. gaps: of the runner-up to
    the first, of each number of the latent, a mean over its channels and the draws: above 0 speaks for the first."""

    order: list[int]
    errors: Float32[Tensor, "hypotheses draws"]
    times: Float32[Tensor, " draws"]
    seen: Float32[Tensor, "hypotheses 3 rows columns"]
    gaps: Float32[Tensor, "height width"]

    def behind(self, k: int) -> tuple[float, float]:
        """By how much a hypothesis has the larger error than the first, and the standard error of that."""
        return _mean(self.errors[k] - self.errors[self.order[0]])

    @property
    def differences(self) -> Float32[Tensor, " draws"]:
        """Runner-up minus first, by each draw."""
        return self.errors[self.order[1]] - self.errors[self.order[0]]

    @property
    def margin(self) -> float:
        return _mean(self.differences)[0]

    @property
    def standard_error(self) -> float:
        return _mean(self.differences)[1]

    @property
    def sure(self) -> bool:
        """Whether the margin stands out of its own noise: two standard errors."""
        return self.margin > 2 * self.standard_error

    @property
    def bands(self) -> list[Band]:
        """The gap by noise level."""
        found = []
        for low, high in ((k / BANDS, (k + 1) / BANDS) for k in range(BANDS)):
            mine = self.differences[(self.times >= low) & (self.times < high)].double()
            if len(mine) < 3:
                found.append(Band(low, high, None, None, len(mine)))
                continue
            mean, error = _mean(mine)
            half = float(student.ppf((1 + CONFIDENCE) / 2, len(mine) - 1)) * error
            found.append(Band(low, high, mean, (mean - half, mean + half), len(mine)))
        return found

    def in_words(self, names: Sequence[str]) -> list[str]:
        """What it says, in sentences. names: of the hypotheses."""
        first, second = (names[k] for k in self.order[:2])
        how = "explains" if self.sure else "seems to explain"
        said = [
            f"Told {first!r}, the prior {how} the noisy image better than told {second!r}: the errors differ by "
            f"{self.margin:.3g} with a standard error of {self.standard_error:.2g} (N = {len(self.times)} draws)."
        ]
        if not self.sure:
            said.append("That is less than two standard errors: more draws may well say otherwise.")
        known = [band for band in self.bands if band.gap is not None and band.ends is not None and band.ends[0] > 0]
        if known and self.sure:
            best = max(known, key=lambda band: (band.gap or 0.0) * band.draws)
            share = (best.gap or 0.0) * best.draws / float(self.differences.sum())
            part = f"{100 * share:.0f} % of it comes" if share <= 1 else "All of it, and more, comes"
            said.append(f"{part} from noise levels t from {best.low:.2f} to {best.high:.2f} of 1.")
        if against := [b for b in self.bands if b.ends is not None and b.ends[1] < 0]:
            levels = " and ".join(f"{band.low:.2f} to {band.high:.2f}" for band in against)
            said.append(f"Levels from {levels} speak for {second!r}.")
        if self.sure:
            said.append(f"Of the picture, the {_where(self.gaps)} speaks most for {first!r}.")
        return said


class Watched:
    """An explanation on the way: `for _ in watched` makes one draw after the other, of all hypotheses; `now` is what
    they come to so far.

    latents: one, `[1, C, h, w]`; hypotheses: a condition row each; owners: what each says, where several say the same.
    Raises UsageError unless two or more things are said, and as `draws.check_draws`.
    """

    def __init__(
        self,
        prior: Prior,
        latents: Latents,
        hypotheses: Condition,
        id: str,
        *,
        owners: Sequence[int] | None = None,
        draws: int = 48,
        weighting: str = "x0",
        seed: int = 0,
    ) -> None:
        self.owners = list(range(len(hypotheses))) if owners is None else list(owners)
        if len(set(self.owners)) < 2:
            raise UsageError("an explanation tells two or more classes apart, and there is one: give another label")
        if draws < 4:
            raise UsageError(f"an explanation needs 4 draws or more, not {draws}")
        check_draws("van-der-corput", draws, numbers=math.prod(prior.latent_shape))
        weighting_named(weighting)
        self.prior, self.hypotheses, self.weighting = prior, hypotheses, weighting
        steps = prior.num_timesteps
        self.draws = draw("van-der-corput", draws, latents, [id], seed=seed, num_timesteps=steps)
        self.latents = latents.expand(len(hypotheses), -1, -1, -1)
        self.done = 0
        self._errors = torch.empty(len(hypotheses), draws)
        shape = (len(hypotheses), *latents.shape[1:])
        self._residuals, self._seen, self._looks = torch.zeros(shape), torch.zeros(shape), 0

    @torch.no_grad()
    def __iter__(self) -> Iterator[int]:
        """Yields how many draws are done, after each."""
        while self.done < self.draws.count:
            timesteps = self.draws.timesteps[0, self.done].expand(len(self.latents))
            noise = self.draws.noise[0, self.done].expand_as(self.latents)
            denoised = self.prior(self.prior.add_noise(self.latents, timesteps, noise), timesteps, self.hypotheses)
            residual = denoised.output.float() - denoised.target(self.latents.float(), noise.float())
            time = timesteps.float() / self.prior.num_timesteps
            weight = weight_of(denoised, time, self.weighting, "l2")
            weighted = (residual.square() * weight[:, None, None, None]).cpu()
            self._errors[:, self.done] = weighted.flatten(1).mean(1)
            self._residuals += weighted
            if LOOK[0] <= float(time[0]) < LOOK[1]:
                self._seen += denoised.x0.float().cpu()
                self._looks += 1
            self.done += 1
            yield self.done

    def finish(self) -> Explanation:
        """What is left of the draws, and what all of them come to."""
        for _ in self:
            pass
        return self.now

    @property
    def evaluations(self) -> int:
        """Of the denoiser, so far."""
        return self.done * len(self.latents)

    @property
    def now(self) -> Explanation:
        """After at least two draws."""
        errors = self._errors[:, : self.done].clone()
        best: dict[int, int] = {}
        for k in errors.mean(1).argsort(stable=True).tolist():
            best.setdefault(self.owners[k], k)
        order = [*best.values()]
        gaps = (self._residuals[order[1]] - self._residuals[order[0]]).mean(0) / self.done
        times = self.draws.timesteps[0, : self.done].float().cpu() / self.prior.num_timesteps
        with torch.no_grad():
            seen = self.prior.decode((self._seen / max(1, self._looks)).to(self.prior.device)).cpu()
        return Explanation(order, errors, times, seen.clamp(0, 1), gaps)


def _mean(values: Tensor) -> tuple[float, float]:
    """And its standard error."""
    return float(values.mean()), float(values.std()) / math.sqrt(len(values))


def _where(gaps: Tensor) -> str:
    """The ninth of a picture whose gaps are the largest."""
    grid = torch.nn.functional.adaptive_avg_pool2d(gaps[None, None], 3)[0, 0]
    row, column = divmod(int(grid.argmax()), 3)
    if (row, column) == (1, 1):
        return "middle"
    rows, columns = ("upper", "middle", "lower"), ("left", "centre", "right")
    return f"{rows[row]} {columns[column]}"
