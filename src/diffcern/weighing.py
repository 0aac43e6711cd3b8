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
from diffcern.evidence import Evidence, at_levels, evidence_at, points
from diffcern.hidden import Hidden, suspects
from diffcern.noise_levels import LATEST, noise_at, noise_level, time_of
from diffcern.priors.base import Prior
from diffcern.racing import Lane, Rule
from diffcern.resizing import Images, interpolate
from diffcern.search import FIRST, PAINTING, RESERVED, START, Search
from diffcern.transformations import IDENTITY, Transformation
from diffcern.views import FAMILIES

LEAVES = 1.0  # standard errors behind the best
CHECKED = 4  # times the draws of a race, before a view is given up that is not likelier for sure
LOUDER = 4.0  # times the noise that is in the image, from which on its views are compared: turning mixes it
CLEAR = 1.2  # times the noise of a candidate, by which the softest level that it is looked at is louder
NOISY = 30.0  # nats of margin for a noise of 1 in the latent
EMPTY = 0.5  # of an image's deviation: a view with less shows less of it
NOTICED = 0.03  # what changes no number of an image by as much is no candidate
DETAIL = 0.3  # of the levels, which tell a small part of a picture; beyond them it is covered by noise


@dataclass(frozen=True, eq=False)
class Candidate:
    """latent: what is looked at. reach: how much louder in it the noise is that is laid on the picture; noise: that is
    in it already; sharpened: log |det J| of what is not the same for all numbers; hidden: parts that were uncovered."""

    latent: Tensor
    reach: float
    noise: float
    sharpened: float = 0.0
    hidden: Hidden | None = None

    def nats(self, loud: float) -> float:
        """What is to be added to log p but for the noise that is stretched."""
        return self.sharpened + (self.hidden.nats(loud) if self.hidden else 0.0)


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

    def candidate(self, view: Transformation) -> Candidate:
        return Candidate(self.latent(view), self.reach(view), self.noise * self.stretch(view), self.sharpened(view))

    def weigh(self, views: Sequence[Transformation], drawn: Draws, level: float) -> Float64[Tensor, "views draws"]:
        """log p(g(x)) + log |det J_g| but for what all share, by each draw."""
        return self.compare([self.candidate(view) for view in views], drawn, level)

    def compare(
        self, candidates: Sequence[Candidate], drawn: Draws, level: float, part: float = 1.0
    ) -> Float64[Tensor, "candidates draws"]:
        """As `weigh`, of any candidates under the noise that makes one that is not stretched as noisy as `level`;
        part: of the levels above, beyond which they hardly differ."""
        low = [time_of(self.prior, level * each.reach) for each in candidates]
        loud = [noise_at(self.prior, each) for each in low]
        noise = [min(each.noise, n / CLEAR) for each, n in zip(candidates, loud, strict=True)]
        count = len(candidates) * drawn.count
        self.spent, self.left = self.spent + count, self.left - count
        latents = torch.cat([each.latent for each in candidates])
        found = evidence_at(
            self.prior, latents, at_levels(self.prior, drawn, low, part), low=low, noise=noise, part=part
        ).per_draw
        if not self.search.jacobian:
            return found
        size, laid = latents[0].numel(), _without(level, min(self.noise, level / CLEAR))
        reached = [size * math.log(_without(n, own) / laid) for n, own in zip(loud, noise, strict=True)]
        others = [each.nats(n) for each, n in zip(candidates, loud, strict=True)]
        return found + torch.tensor([reached, others], dtype=torch.float64).sum(0)[:, None]

    def race(self, views: Sequence[Transformation], low: float) -> Transformation:
        """The first of them, or one that is likelier: those fall out that lose some of the image, or change nothing."""
        first, *others = dict.fromkeys(views)
        own = first.apply(self.image).clamp(0, 1)
        fitting = [
            first,
            *(g for g in others if all(g.fits(self.image)) and _is_other(g.apply(self.image).clamp(0, 1), own)),
        ]
        return fitting[self.lead([self.candidate(view) for view in fitting], self.level(fitting, low))]

    def lead(self, candidates: Sequence[Candidate], level: float, part: float = 1.0) -> int:
        """Which of them is likeliest, the first where nobody could ask."""
        drawn = self.draws(self.search.draws)
        lane = Lane(
            torch.full((len(candidates), drawn.count), torch.nan), list(range(len(candidates))), range(len(candidates))
        )
        rule = Rule(LEAVES, START)
        while lane.open and len(lane.alive) > 1:
            coming = lane.next(rule)
            if len(lane.alive) * len(coming) > self.left - self.kept - RESERVED:
                break
            some = drawn[torch.arange(coming.start, coming.stop)]
            found = self.compare([candidates[k] for k in lane.alive], some, level, part)
            lane.errors[lane.alive, coming.start : coming.stop] = -found.float()
            lane.seen = coming.stop
            lane.look(rule)
        return lane.best if lane.seen else 0

    def stays(self, view: Transformation, margins: Mapping[str, float]) -> bool:
        """Whether no neighbour of the view, nor what the family did not touch, is surely likelier by the margin."""
        self.kept = PAINTING * self.search.inpaint
        for name in self.search.families:
            family, margin = FAMILIES[name], margins[name]
            low = max(self.search.low, family.low)
            others = [family.like(view, IDENTITY), *family.around(view, 1.0)]
            if (1 + len(others)) * START > self.left - self.kept - RESERVED:  # nobody could ask
                return False
            best = self.race([view, *others], low)
            if best != view and self.gain(best, view, low, margin) is not None:
                return False
        return True

    def gain(self, view: Transformation, before: Transformation, low: float, margin: float) -> Evidence | None:
        """By how many nats the view is likelier, where it surely is by the margin, which is wider in noise."""
        return self.check(self.candidate(view), self.candidate(before), self.level([view, before], low), margin)

    def uncovered(self, view: Transformation, margin: float) -> tuple[Hidden, Evidence] | None:
        """What hides a part of the view, where that is surely likelier than that nothing does."""
        if self.left < PAINTING:
            return None
        own = self.candidate(view)
        found, asked = suspects(self.prior, own.latent, self.id, self.seed)
        self.spent, self.left = self.spent + asked, self.left - asked
        laid = max(noise_at(self.prior, self.search.low) / own.reach, self.noise)
        level = math.hypot(laid, self.noise)
        candidates = [own]
        for hidden in found:
            noise = min(hidden.noise, own.noise * hidden.stretch)
            reach = math.hypot(laid * own.reach * hidden.stretch, noise) / level
            known = replace(hidden, noise=noise)
            candidates.append(replace(own, latent=known.latent, reach=reach, noise=noise, hidden=known))
        if level * max(each.reach for each in candidates) > noise_at(self.prior, LATEST):  # all that tells is covered
            return None
        best = self.lead(candidates, level, DETAIL)
        chosen = candidates[best].hidden
        gain = self.check(candidates[best], own, level, margin, DETAIL) if chosen else None
        return (chosen, gain) if chosen and gain else None

    def check(
        self, one: Candidate, other: Candidate, level: float, margin: float, part: float = 1.0
    ) -> Evidence | None:
        """As `gain`, by draws that chose nothing."""
        drawn, rule = self.draws(CHECKED * self.search.draws, "/check"), Rule(start=FIRST)
        margin += NOISY * self.noise
        seen, differences = 0, torch.empty(1, 0, dtype=torch.float64)
        while (stop := min(seen + rule.more(seen), drawn.count)) > seen and 2 * (stop - seen) <= self.left - self.kept:
            some = drawn[torch.arange(seen, stop)]
            pair = self.compare([one, other], some, level, part)
            differences = torch.cat([differences, (pair[:1] - pair[1:])], 1)
            seen = stop
            found = Evidence(differences, drawn.timesteps[:, :seen].cpu())
            nats, unsure = found.nats.item(), self.search.z * found.standard_error.item()
            if nats - unsure > margin:
                return found
            if nats + unsure < margin:
                return None
        return None


def _without(loud: float, noise: float) -> float:
    """Of this noise, what is laid on where the other is there already."""
    return math.sqrt(loud**2 - noise**2)


def _is_other(image: Tensor, before: Tensor) -> bool:
    """Whether it differs, and did not lose most of what was to be seen, as by a scale that leaves the border alone."""
    return bool((image - before).abs().max() >= NOTICED and image.std() >= EMPTY * before.std())
