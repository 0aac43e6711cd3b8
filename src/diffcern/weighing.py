"""Weighs the candidates for one image's canonical view by what the prior says of them, within a budget.

    log p(g(x)) + log |det J_g|        log p: the evidence lower bound (`evidence.py`)

A bound that starts at some noise does not see what is finer, and a picture that is stretched shows more above it. So
the same noise is laid on the picture that all candidates are made of: one that stretches it, stretches the noise too,
and is looked at from that level on. What the Jacobian adds is then what the louder noise takes away, and neither a
flat picture nor a stretched one is likelier for being so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float64
from torch import Tensor

from diffcern.draws import Draws
from diffcern.errors import UsageError
from diffcern.evidence import Evidence, at_levels, evidence_at, points
from diffcern.noise_levels import LATEST, MOST, noise_at, noise_level, time_of
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
LOUDER = 4.0  # times the noise that is in the image, from which on its views are compared: turning mixes it
CLEAR = 1.2  # times the noise of a candidate, by which the softest level that it is looked at is louder
NOISY = 30.0  # nats of margin for a noise of 1 in the latent
EMPTY = 0.5  # of an image's deviation: a view with less shows less of it
NOTICED = 0.03  # what changes no number of an image by as much is no candidate
USUAL = ("light", "turn")


def once_around(families: Sequence[str]) -> int:
    """Evaluations that it takes to go once around the candidates of each."""
    return START * sum(FAMILIES[name].size + 2 for name in families)


@dataclass(frozen=True)
class Search:
    """families: of `views.FAMILIES`, in order. budget: evaluations of the denoiser for an image, at most (in a stream
    that has changed, once more). draws: of a race, at most. low: where the most stretched candidate is looked at from,
    as a part of the times; a family may say later, and so does noise in the image (`Scale.level`). margin: nats, None
    for what the prior's clean images gain by the family (`clean_gains.py`), and z: standard errors, by which a view
    must be better than none; a noisy image's margin is wider. rounds: of refinement. jacobian: false leaves
    log |det J| out, as FOCAL does; its form has margin and z 0 too.

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
        if self.budget < (least := MOST + RESERVED + once_around(self.families)):
            raise UsageError(
                f"a budget of {self.budget} evaluations does not reach around the candidates: "
                f"{', '.join(self.families)} need {least} or more"
            )


class Scale:
    """Weighs one image's candidates, all under the same noise, and counts what it takes. kept: of the evaluations that
    are left, for families that come later."""

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
        self.search, self.left, self.kept = search, search.budget, 0
        seen = torch.stack([*looked_at(image)])
        self.small = interpolate(seen, prior.latent_shape[1:], "bilinear")  # the numbers that the prior can tell
        self.own = self.latent(IDENTITY)
        self.spent, self.noise = 0, noise or 0.0
        if noise is None:
            level = noise_level(prior, self.own, id, seed)
            self.spent, self.noise = level.evaluations, level.noise
            self.left -= level.evaluations

    def latent(self, view: Transformation) -> Tensor:
        return self.prior.latents(self.looked_at(view.apply(self.image, "nearest")))

    def reach(self, view: Transformation) -> float:
        """How much louder the noise is that a view is looked at from: as it stretches the noise on the picture."""
        return self.stretch(view) if self.search.jacobian else 1.0

    def stretch(self, view: Transformation) -> float:
        """What its light multiplies a number by, in the geometric mean, and so white noise: |det J| ^ (1 / D)."""
        return math.exp(replace(view, sharpen=0.0).log_det(self.small).item() / self.small.numel())

    def sharpened(self, view: Transformation) -> float:
        """log |det J| of the blur that it undoes, which is not white noise's: of the numbers of the prior."""
        return Transformation(sharpen=view.sharpen).log_det(self.small).item() * self.own.numel() / self.small.numel()

    def draws(self, count: int, key: str = "") -> Draws:
        return points(self.own, [self.id + key], count, strategy="van-der-corput", seed=self.seed)

    def level(self, views: Sequence[Transformation], low: float) -> float:
        """Noise on the picture from which on these are compared: the most stretched at `low`, and where the picture is
        noisy by itself from `LOUDER` than that."""
        most = max(self.reach(view) for view in views)
        level = max(noise_at(self.prior, low) / most, LOUDER * self.noise)
        return min(level, noise_at(self.prior, LATEST) / most)

    def weigh(self, views: Sequence[Transformation], drawn: Draws, level: float) -> Float64[Tensor, "views draws"]:
        """log p(g(x)) + log |det J_g| but for what all share, by each draw."""
        latents = torch.cat([self.latent(view) for view in views])
        low = [time_of(self.prior, level * self.reach(view)) for view in views]
        loud = [noise_at(self.prior, part) for part in low]
        noise = [min(self.noise * self.stretch(view), n / CLEAR) for view, n in zip(views, loud, strict=True)]
        self.spent, self.left = self.spent + len(views) * drawn.count, self.left - len(views) * drawn.count
        found = evidence_at(self.prior, latents, at_levels(self.prior, drawn, low), low=low, noise=noise).per_draw
        if not self.search.jacobian:
            return found
        size = latents[0].numel()
        stretched = [size * math.log(n / level) + self.sharpened(view) for view, n in zip(views, loud, strict=True)]
        return found + torch.tensor(stretched, dtype=torch.float64)[:, None]

    def race(self, views: Sequence[Transformation], low: float) -> Transformation:
        """The first of them, or one that is likelier: those fall out that lose some of the image, or change nothing."""
        first, *others = dict.fromkeys(views)
        own = first.apply(self.image).clamp(0, 1)
        fitting = [
            first,
            *(g for g in others if all(g.fits(self.image)) and _is_other(g.apply(self.image).clamp(0, 1), own)),
        ]
        drawn, level = self.draws(self.search.draws), self.level(fitting, low)
        lane = Lane(torch.full((len(fitting), drawn.count), torch.nan), list(range(len(fitting))), range(len(fitting)))
        rule = Rule(LEAVES, START)
        while lane.open and len(lane.alive) > 1:
            coming = lane.next(rule)
            if len(lane.alive) * len(coming) > self.left - self.kept - RESERVED:
                break
            some = drawn[torch.arange(coming.start, coming.stop)]
            found = self.weigh([fitting[k] for k in lane.alive], some, level)
            lane.errors[lane.alive, coming.start : coming.stop] = -found.float()
            lane.seen = coming.stop
            lane.look(rule)
        return fitting[lane.best] if lane.seen else first

    def stays(self, view: Transformation, margins: Mapping[str, float]) -> bool:
        """Whether no neighbour of the view, nor what the family did not touch, is surely likelier by the margin."""
        for name, margin in margins.items():
            family = FAMILIES[name]
            low = max(self.search.low, family.low)
            others = [family.like(view, IDENTITY), *family.around(view, 1.0)]
            if (1 + len(others)) * START > self.left - RESERVED:  # nobody could ask
                return False
            best = self.race([view, *others], low)
            if best != view and self.gain(best, view, low, margin) is not None:
                return False
        return True

    def gain(self, view: Transformation, before: Transformation, low: float, margin: float) -> Evidence | None:
        """By how many nats the view is likelier, where it surely is by the margin, which is wider in noise."""
        drawn, rule = self.draws(CHECKED * self.search.draws, "/check"), Rule(start=FIRST)
        level = self.level([view, before], low)
        margin += NOISY * self.noise
        seen, differences = 0, torch.empty(1, 0, dtype=torch.float64)
        while (stop := min(seen + rule.more(seen), drawn.count)) > seen and 2 * (stop - seen) <= self.left - self.kept:
            some = drawn[torch.arange(seen, stop)]
            pair = self.weigh([view, before], some, level)
            differences = torch.cat([differences, (pair[:1] - pair[1:])], 1)
            seen = stop
            found = Evidence(differences, drawn.timesteps[:, :seen].cpu())
            nats, unsure = found.nats.item(), self.search.z * found.standard_error.item()
            if nats - unsure > margin:
                return found
            if nats + unsure < margin:
                return None
        return None


def _is_other(image: Tensor, before: Tensor) -> bool:
    """Whether it differs, and did not lose most of what was to be seen, as by a scale that leaves the border alone."""
    return bool((image - before).abs().max() >= NOTICED and image.std() >= EMPTY * before.std())
