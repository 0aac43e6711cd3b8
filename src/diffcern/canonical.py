"""The canonical view of one image: the transformation under which a prior finds it likeliest (FOCAL, arXiv 2507.10375,
with the term that it lacks).

    g* = argmax_g  log p(g(x)) + log |det J_g|        log p: the evidence lower bound (`evidence.py`)

No weight moves and no batch is needed. Families of candidates (`views.py`) come one after the other: a race of the
coarse grid, in which who falls behind leaves (`racing.py`), races of ever smaller steps around the best, and a check
by draws that chose nothing: the view must be likelier than none of the family, by a margin and by its own uncertainty.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from diffcern import clean_gains
from diffcern.draws import Draws
from diffcern.errors import UsageError
from diffcern.evidence import Evidence, check_pixels, draws_of_levels, evidence_at
from diffcern.noise_levels import MOST, noise_at, noise_level, time_of
from diffcern.priors.base import Prior
from diffcern.racing import Lane, Rule
from diffcern.resizing import Images, interpolate
from diffcern.transformations import IDENTITY, Transformation
from diffcern.views import FAMILIES

LEAVES = 1.0  # standard errors behind the best
START = 4  # draws before the first look at a race
CHECKED = 4  # times the draws of a race, before a view is given up that is not likelier for sure
FIRST = 4  # draws before the first look at a check
RESERVED = 2 * FIRST  # evaluations that races leave for it
LOUDER = 4.0  # times the noise that is in the image, where its views are compared: turning mixes it
CLEAR = 1.2  # times the noise of a candidate, by which the softest level that it is looked at is louder
NOISY = 30.0  # nats of margin for a noise of 1 in the latent
EMPTY = 0.5  # of an image's deviation: a view with less shows less of it
NOTICED = 0.03  # what changes no number of an image by as much is no candidate
USUAL = ("light", "turn")


@dataclass(frozen=True)
class Search:
    """families: of `views.FAMILIES`, in order. budget: evaluations of the denoiser for an image, at most (in a stream
    that has changed, once more). draws: of a race, at most. low: at least, beside the families' own, and never less
    than where the schedule's noise is `LOUDER` than the image's. margin: nats, None for what the prior's clean images
    gain by the family (`clean_gains.py`), and z: standard errors, by which a view must be better than none; a noisy
    image's margin is wider. rounds: of refinement. jacobian: false leaves log |det J| out, as FOCAL does; its form has
    margin and z 0 too.

    Raises UsageError for numbers out of range, for families that there are not, and for a budget that does not reach
    once around the candidates.
    """

    families: tuple[str, ...] = USUAL
    budget: int = 120
    draws: int = 16
    low: float = 0.1
    margin: float | None = None
    z: float = 1.5
    rounds: int = 0
    jacobian: bool = True

    def __post_init__(self) -> None:
        if not self.families or set(self.families) - set(FAMILIES):
            raise UsageError(f"views are some of {', '.join(FAMILIES)}, not {', '.join(self.families) or 'none'}")
        if self.draws < START or self.rounds < 0 or (self.margin or 0) < 0 or self.z < 0 or not 0 <= self.low < 1:
            raise UsageError(
                f"draws are {START} or more, rounds, margin and z at least 0, low in [0, 1), not {self.draws}, "
                f"{self.rounds}, {self.margin}, {self.z}, {self.low}"
            )
        if self.budget < (least := MOST + RESERVED + START * sum(FAMILIES[name].size + 2 for name in self.families)):
            raise UsageError(
                f"a budget of {self.budget} evaluations does not reach around the candidates: "
                f"{', '.join(self.families)} need {least} or more"
            )


@dataclass(frozen=True)
class View:
    """What was found. nats: by how much likelier than the image as it is, over the families that changed it, and their
    standard error; evaluations: of the denoiser. noise: in the latent of the view, as `noise_levels.py` finds it."""

    transformation: Transformation
    nats: float
    evaluations: int
    noise: float
    standard_error: float = 0.0

    @property
    def sensed(self) -> float:
        """Of the noise, what was in the latent of the image itself."""
        return self.noise / (sum(self.transformation.gain) / 3)


def canonical_view(
    prior: Prior,
    image: Tensor,
    id: str,
    search: Search,
    *,
    looked_at: Callable[[Tensor], Images] = lambda image: image,
    seed: int = 0,
    known: View | None = None,
    gains: Mapping[str, Tensor] | None = None,
) -> View:
    """Of one image `[1, 3, H, W]` in [0, 1]. looked_at: the part of an image that is shown to the prior
    (`Predictor.view`). known: of the image before, in a stream: where none of its neighbours is surely likelier it is
    this image's too, for a part of what a search takes; else that part is spent beside a search, of which it is one of
    the candidates. gains: of clean images,
    in the place of the prior's own. Raises as `check_pixels`."""
    check_pixels(prior)
    gains = prior.clean_gains if gains is None else gains
    margins = {name: clean_gains.margin(gains, name) for name in search.families}
    if search.margin is not None:
        margins = dict.fromkeys(margins, search.margin)
    asked = 0
    if known:
        scale = _Scale(prior, image, looked_at, id, seed, search, known.sensed)
        if scale.stays(known.transformation, search, margins):
            return replace(known, evaluations=scale.spent)
        asked = scale.spent
    scale = _Scale(prior, image, looked_at, id, seed, search)
    best, gained = IDENTITY, list[Evidence]()
    for name in search.families:
        family = FAMILIES[name]
        low, before = max(search.low, family.low, scale.quiet), best
        like = [family.like(before, known.transformation)] if known else []
        best = scale.race([before, *like, *family.grid(before, image)], search, low)
        if best == before:
            continue
        for number in range(search.rounds):
            best = scale.race([best, *family.around(best, 0.5**number)], search, low)
        gain = scale.gain(best, before, search, low, margins[name])
        if gain is None:
            best = before
        else:
            gained.append(gain)
    nats, error = sum(gain.nats.item() for gain in gained), math.hypot(*(g.standard_error.item() for g in gained))
    return View(best, nats, asked + scale.spent, scale.noise * sum(best.gain) / 3, error)


def gains_of(
    prior: Prior, image: Tensor, id: str, search: Search, looked_at: Callable[[Tensor], Images], seed: int = 0
) -> dict[str, float]:
    """What one clean image `[1, 3, H, W]` gains by each family of the search alone, in nats; 0 where no view is surely
    likelier."""
    alone = {name: replace(search, families=(name,), margin=0.0) for name in search.families}
    how: dict[str, Any] = {"looked_at": looked_at, "seed": seed}
    return {name: canonical_view(prior, image, id, one, **how).nats for name, one in alone.items()}


class _Scale:
    """Weighs one image's candidates, all under the same noise, and counts what it takes."""

    def __init__(
        self,
        prior: Prior,
        image: Tensor,
        looked_at: Callable[[Tensor], Images],
        id: str,
        seed: int,
        search: Search,
        noise: float | None = None,
    ) -> None:
        self.prior, self.image, self.looked_at, self.id, self.seed = prior, image, looked_at, id, seed
        self.left = search.budget
        channels, rows, columns = prior.latent_shape
        seen = torch.stack([*looked_at(image)])
        self.small = interpolate(seen, (rows, columns), "bilinear")  # the numbers that the prior can tell
        self.stretch = channels / image.shape[1] if search.jacobian else 0.0
        self.own = self.latent(IDENTITY)
        self.spent, self.noise = 0, noise or 0.0
        if noise is None:
            level = noise_level(prior, self.own, id, seed)
            self.spent, self.noise = level.evaluations, level.noise
            self.left -= level.evaluations
        self.quiet = time_of(prior, LOUDER * self.noise)

    def latent(self, view: Transformation) -> Tensor:
        return self.prior.latents(self.looked_at(view.apply(self.image, "nearest")))

    def draws(self, count: int, low: float, key: str = "") -> Draws:
        how: dict[str, Any] = {"low": low, "strategy": "van-der-corput", "seed": self.seed}
        return draws_of_levels(self.prior, self.own, [self.id + key], count, **how)

    def weigh(self, views: Sequence[Transformation], draws: Draws, low: float) -> Float64[Tensor, "views draws"]:
        """log p(g(x)) + log |det J_g| but for what all share, by each draw."""
        latents = torch.cat([self.latent(view) for view in views])
        same = Draws(draws.timesteps.expand(len(views), -1), draws.noise.expand(len(views), -1, -1, -1, -1))
        loudest = noise_at(self.prior, low) / CLEAR
        self.spent, self.left = self.spent + same.timesteps.numel(), self.left - same.timesteps.numel()
        noise = [min(self.noise * sum(view.gain) / 3, loudest) for view in views]
        stretched = self.stretch * torch.cat([view.log_det(self.small) for view in views])
        return evidence_at(self.prior, latents, same, low=low, noise=noise).per_draw + stretched[:, None]

    def race(self, views: Sequence[Transformation], search: Search, low: float) -> Transformation:
        """The first of them, or one that is likelier: those fall out that lose some of the image, or change nothing."""
        first, *others = dict.fromkeys(views)
        own = first.apply(self.image).clamp(0, 1)
        fitting = [
            first,
            *(g for g in others if all(g.fits(self.image)) and _is_other(g.apply(self.image).clamp(0, 1), own)),
        ]
        lane = Lane(torch.full((len(fitting), search.draws), torch.nan), list(range(len(fitting))), range(len(fitting)))
        rule, draws = Rule(LEAVES, START), self.draws(search.draws, low)
        while lane.open and len(lane.alive) > 1:
            coming = lane.next(rule)
            if len(lane.alive) * len(coming) > self.left - RESERVED:
                break
            some = draws[torch.arange(coming.start, coming.stop)]
            found = self.weigh([fitting[k] for k in lane.alive], some, low)
            lane.errors[lane.alive, coming.start : coming.stop] = -found.float()
            lane.seen = coming.stop
            lane.look(rule)
        return fitting[lane.best] if lane.seen else first

    def stays(self, view: Transformation, search: Search, margins: Mapping[str, float]) -> bool:
        """Whether no neighbour of the view, nor what the family did not touch, is surely likelier by the margin."""
        for name, margin in margins.items():
            family = FAMILIES[name]
            low = max(search.low, family.low, self.quiet)
            others = [family.like(view, IDENTITY), *family.around(view, 1.0)]
            if (1 + len(others)) * START > self.left - RESERVED:  # nobody could ask
                return False
            best = self.race([view, *others], search, low)
            if best != view and self.gain(best, view, search, low, margin) is not None:
                return False
        return True

    def gain(
        self, view: Transformation, before: Transformation, search: Search, low: float, margin: float
    ) -> Evidence | None:
        """By how many nats the view is likelier, where it surely is by the margin, which is wider in noise."""
        draws, rule = self.draws(CHECKED * search.draws, low, "/check"), Rule(start=FIRST)
        margin += NOISY * self.noise
        seen, differences = 0, torch.empty(1, 0, dtype=torch.float64)
        while (stop := min(seen + rule.more(seen), draws.count)) > seen and 2 * (stop - seen) <= self.left:
            some = draws[torch.arange(seen, stop)]
            pair = self.weigh([view, before], some, low)
            differences = torch.cat([differences, (pair[:1] - pair[1:])], 1)
            seen = stop
            found = Evidence(differences, draws.timesteps[:, :seen].cpu())
            nats, unsure = found.nats.item(), search.z * found.standard_error.item()
            if nats - unsure > margin:
                return found
            if nats + unsure < margin:
                return None
        return None


def _is_other(image: Tensor, before: Tensor) -> bool:
    """Whether it differs, and did not lose most of what was to be seen, as by a scale that leaves the border alone."""
    return bool((image - before).abs().max() >= NOTICED and image.std() >= EMPTY * before.std())
