"""How timesteps and noise are drawn for a denoising error.

A strategy turns M into M times in [0, 1); every sample has its own generator (see `rng`). The mean over the draws of
every strategy but "even" and "fixed-bank" is unbiased for the uniform integral over t.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int
from torch import Generator, Tensor

from diffcern.errors import UsageError, unknown
from diffcern.memory import check_memory
from diffcern.rng import generator
from diffcern.types import Latents

Times = Float64[Tensor, " draws"]  # of one sample, in [0, 1)


@dataclass(frozen=True)
class Draws:
    """Timesteps and noise for each sample of a batch."""

    timesteps: Int[Tensor, "batch draws"]
    noise: Float[Tensor, "batch draws channels height width"]

    @property
    def count(self) -> int:
        """M, the number of draws per sample."""
        return self.timesteps.shape[1]

    def __getitem__(self, index: slice | Int[Tensor, " some"]) -> Draws:
        """The draws `index` of every sample."""
        return Draws(self.timesteps[:, index], self.noise[:, index])

    def at(self, index: Int[Tensor, "batch some"]) -> Draws:
        """Of each sample those that its row of `index` names."""
        each = torch.arange(len(index), device=index.device)[:, None]
        return Draws(self.timesteps[each, index], self.noise[each, index])


def uniform(count: int, rng: Generator) -> Times:
    """Independent times (the published choice of Diffusion-TTA)."""
    return torch.rand(count, generator=rng, dtype=torch.float64)


def stratified(count: int, rng: Generator) -> Times:
    """One time in each of M equal strata: the variance between noise levels is gone."""
    return (torch.arange(count) + uniform(count, rng)) / count


def antithetic(count: int, rng: Generator) -> Times:
    """Stratified times, each used twice: `draw` gives the second use the negated noise."""
    _check_even(count)
    half = stratified(count // 2, rng)
    return torch.cat([half, half])


def _check_even(count: int) -> None:
    if count % 2:
        raise UsageError(f"antithetic draws come in pairs: give an even number, not {count}")


def van_der_corput(count: int, rng: Generator) -> Times:
    """Bit-reversed times 1/2, 1/4, 3/4, 1/8 ... with one random shift: every prefix is near-uniform."""
    return (radical_inverse(count) + uniform(1, rng)) % 1.0


def even(count: int, rng: Generator) -> Times:
    """The midpoints of M equal strata, no randomness; where M divides T the published t = T//M//2 + i T//M."""
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count


def radical_inverse(count: int) -> Times:
    """The van der Corput sequence in base 2, starting at 1/2."""
    index = torch.arange(1, count + 1)
    value = torch.zeros(count, dtype=torch.float64)
    for bit in range(count.bit_length()):
        value += ((index >> bit) & 1) * 0.5 ** (bit + 1)
    return value


STRATEGIES: dict[str, Callable[[int, Generator], Times]] = {
    "uniform": uniform,
    "stratified": stratified,
    "antithetic": antithetic,
    "van-der-corput": van_der_corput,
    "even": even,
    "fixed-bank": even,  # and the same noise for every sample, see `draw`
}


def check_draws(strategy: str, count: int, span: Sequence[float] = (0.0, 1.0), numbers: int = 1) -> None:
    """Raises UsageError for an unknown strategy, a count that it cannot make, a span outside [0, 1], and for more than
    fits into this machine's memory.

    numbers: how many are kept for each draw of an image, in fp32 (those of its noise, at least).
    """
    if strategy not in STRATEGIES:
        raise unknown("draw strategy", strategy, STRATEGIES)
    if count < 1 or not 0 <= span[0] <= span[1] <= 1:
        raise UsageError(f"draws need count >= 1 and 0 <= low <= high <= 1, not count={count}, span={span}")
    if strategy == "antithetic":
        _check_even(count)
    check_memory(f"{count:,} draws of {numbers:,} numbers each", 4 * count * (numbers + 2), "give fewer draws")


def draw(
    strategy: str,
    count: int,
    latents: Latents,
    ids: Sequence[str],
    *,
    seed: int,
    num_timesteps: int,
    update: int = 0,
    span: tuple[float, float] = (0.0, 1.0),
) -> Draws:
    """Draws for each sample, keyed by (seed, id, update) whatever the batch.

    latents: for shape, dtype and device. span: the part of [0, 1] that times are drawn from;
    (0.1, 0.1) means t = 0.1 * num_timesteps only. update tells apart the draws of successive updates.
    Raises UsageError for an unknown strategy, a count below 1 or a span outside [0, 1].
    """
    check_draws(strategy, count, span, math.prod(latents.shape[1:]))
    low, high = span
    times, noises = [], []
    for id in ids:
        key = ("bank",) if strategy == "fixed-bank" else ("draws", id, update)
        rng = generator(seed, *key)
        times.append(STRATEGIES[strategy](count, rng))
        noises.append(_noise(strategy, count, latents.shape[1:], rng))
    time = low + (high - low) * torch.stack(times)
    timesteps = (time * num_timesteps).floor().long().clamp(max=num_timesteps - 1)
    return Draws(timesteps.to(latents.device), torch.stack(noises).to(latents.device, latents.dtype))


def _noise(
    strategy: str, count: int, shape: torch.Size, rng: Generator
) -> Float[Tensor, "draws channels height width"]:
    if strategy == "antithetic":
        half = torch.randn(count // 2, *shape, generator=rng)
        return torch.cat([half, -half])
    return torch.randn(count, *shape, generator=rng)
