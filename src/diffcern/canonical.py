"""The canonical view of one image: the transformation under which a prior finds it likeliest (FOCAL, arXiv 2507.10375,
with the term that it lacks).

    g* = argmax_g  log p(g(x)) + log |det J_g|        log p: the evidence lower bound (`evidence.py`)

No weight moves and no batch is needed. Families of candidates come one after the other, light and then turns: a coarse
grid, of which those that fall behind at a few draws leave, ever smaller steps around the best, and a check: it must be
better than no transformation of the family by a margin and its own uncertainty. Familiar images are left alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from diffcern.errors import UsageError
from diffcern.evidence import Evidence, evidence
from diffcern.priors.base import Prior
from diffcern.resizing import Images
from diffcern.transformations import IDENTITY, Three, Transformation

GAINS, FLOORS = (1.5, 2.2, 3.3), (0.0, 0.2, 0.4, 0.6)  # a floor is the brightness that becomes black
TURNS = (-45.0, -30.0, -15.0, 15.0, 30.0, 45.0)
FIRST = 4  # draws of a first look
KEPT = 4  # of so many candidates one stays after it, and three at least
CHECKED = 4  # times the draws, before an image is not left alone


@dataclass(frozen=True)
class Family:
    """Candidates that are alike. grid: coarse ones over the best so far, around: its neighbours at a step of 1, 1/2 ...
    like: the best so far with what the family did to another image. low: times below are not looked at. A turned
    picture of pixels has steps in it that no photo has: turns are compared where noise covers these."""

    grid: Callable[[Transformation], list[Transformation]]
    around: Callable[[Transformation, float], list[Transformation]]
    like: Callable[[Transformation, Transformation], Transformation]
    low: float


def _lights(best: Transformation) -> list[Transformation]:
    return [replace(best, gain=(g,) * 3, offset=(-g * floor,) * 3) for g in GAINS for floor in FLOORS]


def _lights_around(best: Transformation, step: float) -> list[Transformation]:
    """Gains apart by a quarter of the step, floors by 0.08 of it."""
    factors, moves = (1 + 0.25 * step, 1 / (1 + 0.25 * step)), (0.08 * step, -0.08 * step)
    scaled = [replace(best, gain=_each(best.gain, by), offset=_each(best.offset, by)) for by in factors]
    return scaled + [replace(best, offset=_each(best.offset, 1.0, move)) for move in moves]


def _each(values: Three, factor: float, move: float = 0.0) -> Three:
    first, second, third = (factor * value + move for value in values)
    return first, second, third


FAMILIES = {
    "light": Family(
        _lights, _lights_around, lambda best, other: replace(best, gain=other.gain, offset=other.offset), 0.1
    ),
    "turn": Family(
        lambda best: [replace(best, turn=angle) for angle in TURNS],
        lambda best, step: [replace(best, turn=best.turn + move) for move in (8 * step, -8 * step)],
        lambda best, other: replace(best, turn=other.turn),
        0.3,
    ),
}


@dataclass(frozen=True)
class Search:
    """families: of `FAMILIES`, in order. draws: of a comparison. low: at least, beside the families' own, and never
    less than where the schedule's noise is louder than the image's. margin: nats, and z: standard errors, by which a
    view must be better than none. rounds: of refinement.

    Raises UsageError for numbers out of range, and for families that there are not.
    """

    families: tuple[str, ...] = tuple(FAMILIES)
    draws: int = 16
    low: float = 0.1
    margin: float = 10.0
    z: float = 2.0
    rounds: int = 2

    def __post_init__(self) -> None:
        if not self.families or set(self.families) - set(FAMILIES):
            raise UsageError(f"views are some of {', '.join(FAMILIES)}, not {', '.join(self.families) or 'none'}")
        if self.draws < FIRST or self.rounds < 0 or self.margin < 0 or self.z < 0 or not 0 <= self.low < 1:
            raise UsageError(
                f"draws are {FIRST} or more, rounds, margin and z at least 0, low in [0, 1), not {self.draws}, "
                f"{self.rounds}, {self.margin}, {self.z}, {self.low}"
            )

    @property
    def evaluations(self) -> int:
        """Of an image, at most."""
        total = 0
        for family in (FAMILIES[name] for name in self.families):
            for count in (len(family.grid(IDENTITY)) + 2, *[len(family.around(IDENTITY, 1.0)) + 1] * self.rounds):
                total += FIRST * count + self.draws * _kept(count)
            total += 2 * CHECKED * self.draws
        return total


@dataclass(frozen=True)
class View:
    """What was found. nats: by how much likelier than the image as it is, over the families that changed it;
    evaluations: of the denoiser."""

    transformation: Transformation
    nats: float
    evaluations: int


def check_pixels(prior: Prior) -> None:
    """Raises UsageError for a prior whose latents are an autoencoder's, see `evidence.py`."""
    if hasattr(prior, "autoencoder"):
        raise UsageError(
            "views are compared by a prior of pixels: an autoencoder's latents have no likelihood of images"
        )


def canonical_view(
    prior: Prior,
    image: Tensor,
    id: str,
    search: Search,
    *,
    looked_at: Callable[[Tensor], Images] = lambda image: image,
    seed: int = 0,
    known: Transformation = IDENTITY,
) -> View:
    """Of one image `[1, 3, H, W]` in [0, 1]. looked_at: the part of an image that is shown to the prior
    (`Predictor.view`). known: of the image before, in a stream; a candidate beside the grids. Raises as
    `check_pixels`."""
    check_pixels(prior)
    own = prior.latents(looked_at(image))
    share = own.numel() / image.numel()  # of the image's numbers, each of which is stretched, that the prior counts
    quiet = noise_time(prior, own)
    best, total, spent = IDENTITY, 0.0, 0

    def weighed(candidates: Sequence[Transformation], draws: int, low: float, key: str = "") -> Evidence:
        nonlocal spent
        spent += len(candidates) * draws
        seen = [prior.latents(looked_at(candidate.apply(image, "nearest"))) for candidate in candidates]
        how: dict[str, Any] = {"draws": draws, "low": low, "strategy": "van-der-corput", "seed": seed}
        found = evidence(prior, torch.cat(seen), [id + key] * len(candidates), **how)
        gains = share * torch.cat([candidate.log_det(image) for candidate in candidates])
        return Evidence(found.per_draw + gains[:, None], found.timesteps)

    def best_of(candidates: Sequence[Transformation], low: float) -> Transformation:
        fitting = [g for number, g in enumerate(dict.fromkeys(candidates)) if not number or all(g.fits(image))]
        if (kept := _kept(len(fitting))) < len(fitting):
            order = weighed(fitting, FIRST, low).nats.argsort(descending=True)[:kept]
            fitting = [fitting[k] for k in order.tolist()]
        return fitting[0] if len(fitting) == 1 else fitting[int(weighed(fitting, search.draws, low).nats.argmax())]

    for family in (FAMILIES[name] for name in search.families):
        low, before = max(search.low, family.low, quiet), best
        best = best_of([before, family.like(before, known), *family.grid(before)], low)
        for number in range(search.rounds):
            best = best_of([best, *family.around(best, 0.5**number)], low)
        if best == before:
            continue
        both = weighed([best, before], CHECKED * search.draws, low, "/check")  # draws that it was not chosen by
        gain = both[:1].over(both[1:])
        if gain.nats.item() > search.margin + search.z * gain.standard_error.item():
            total += gain.nats.item()
        else:
            best = before
    return View(best, total, spent)


def noise_time(prior: Prior, latent: Tensor) -> float:
    """The part of the times at which the schedule's noise is softer than that of the latent `[1, C, h, w]`.

    The latter is told from the differences between neighbours along both diagonals (Donoho & Johnstone 1994): of white
    noise, median |d| = 0.6745 sigma. At most 0.8.
    """
    even = latent[..., : latent.shape[-2] // 2 * 2, : latent.shape[-1] // 2 * 2]
    detail = (even[..., ::2, ::2] - even[..., 1::2, ::2] - even[..., ::2, 1::2] + even[..., 1::2, 1::2]) / 2
    sigma = detail.abs().median().item() / 0.6745
    softer = prior.sigmas / prior.alphas.clamp(min=1e-6) < sigma
    return min(0.8, softer.double().mean().item())


def _kept(count: int) -> int:
    """How many of so many candidates are looked at again."""
    return max(3, math.ceil(count / KEPT)) if count > KEPT else count
