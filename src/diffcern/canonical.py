"""The canonical view of one image: the transformation under which a prior finds it likeliest (FOCAL, arXiv 2507.10375,
with the term that it lacks).

    g* = argmax_g  log p(g(x)) + log |det J_g|        log p: the evidence lower bound (`evidence.py`)

No weight moves and no batch is needed. Families of candidates (`views.py`) come one after the other: a race of the
coarse grid, in which who falls behind leaves (`racing.py`), races of ever smaller steps around the best, and a check
by draws that chose nothing: the view must be likelier than none of the family, by a margin and by its own uncertainty.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from diffcern import clean_gains
from diffcern.evidence import Evidence, check_pixels
from diffcern.hidden import Hidden
from diffcern.priors.base import Prior
from diffcern.resizing import Images
from diffcern.search import INPAINT, Search
from diffcern.transformations import IDENTITY, Transformation
from diffcern.views import FAMILIES
from diffcern.weighing import Scale

__all__ = ["Search", "View", "canonical_view", "gains_of"]


@dataclass(frozen=True)
class View:
    """What was found. nats: by how much likelier than the image as it is, over the families that changed it, and their
    standard error; evaluations: of the denoiser. noise: in the latent of the view, as `noise_levels.py` finds it.
    hidden: a part of the view that does not show the picture, and what is behind; hidden_nats: by how much likelier it
    is that something is."""

    transformation: Transformation
    nats: float
    evaluations: int
    noise: float
    standard_error: float = 0.0
    hidden: Hidden | None = None
    hidden_nats: float = 0.0

    @property
    def sensed(self) -> float:
        """Of the noise, what was in the latent of the image itself."""
        return self.noise / (sum(self.transformation.gain) / 3)

    @property
    def left(self) -> float:
        """Of the noise, what is in the latent once nothing hides a part of it."""
        return self.hidden.noise if self.hidden else self.noise


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
    the candidates. gains: of clean images, in the place of the prior's own. Raises as `check_pixels`."""
    check_pixels(prior)
    gains = prior.clean_gains if gains is None else gains
    margins = {name: clean_gains.margin(gains, name) for name in search.names}
    if search.margin is not None:
        margins = dict.fromkeys(margins, search.margin)
    asked, found = 0, None
    if known:
        scale = Scale(prior, image, looked_at, id, seed, search, known.sensed)
        if scale.stays(known.transformation, margins):
            found = replace(known, hidden=None, hidden_nats=0.0)
        else:
            asked = scale.spent
    if found is None:
        scale = Scale(prior, image, looked_at, id, seed, search)
        found = _searched(scale, margins, known)
    if search.inpaint:
        found = _uncovered(scale, found, margins[INPAINT])
    return replace(found, evaluations=asked + scale.spent)


def _searched(scale: Scale, margins: Mapping[str, float], known: View | None) -> View:
    """Family after family."""
    best, gained, search = IDENTITY, list[Evidence](), scale.search
    for number, name in enumerate(search.families):
        family, scale.kept = FAMILIES[name], search.once_around(search.families[number + 1 :])
        low, before = max(search.low, family.low), best
        like = [family.like(before, known.transformation)] if known else []
        best = scale.race([before, *like, *family.grid(before, scale.image)], low)
        if best == before:
            continue
        for halved in range(search.rounds):
            best = scale.race([best, *family.around(best, 0.5**halved)], low)
        gain = scale.gain(best, before, low, margins[name])
        if gain is None:
            best = before
        else:
            gained.append(gain)
    nats, error = math.fsum(gain.nats.item() for gain in gained), math.hypot(*(g.standard_error.item() for g in gained))
    return View(best, nats, 0, scale.noise * sum(best.gain) / 3, error)


def _uncovered(scale: Scale, found: View, margin: float) -> View:
    """The view, with what hides a part of it."""
    scale.kept = 0
    uncovered = scale.uncovered(found.transformation, margin)
    if uncovered is None:
        return found
    hidden, gain = uncovered
    return replace(found, hidden=hidden, hidden_nats=gain.nats.item())


def gains_of(
    prior: Prior, image: Tensor, id: str, search: Search, looked_at: Callable[[Tensor], Images], seed: int = 0
) -> dict[str, float]:
    """What one clean image `[1, 3, H, W]` gains by each of `search.names` alone, in nats; 0 where no view is surely
    likelier."""
    alone = {name: replace(search, families=(name,), margin=0.0, inpaint=False) for name in search.families}
    if search.inpaint:
        alone[INPAINT] = replace(search, families=(), margin=0.0)
    how: dict[str, Any] = {"looked_at": looked_at, "seed": seed}
    found = {name: canonical_view(prior, image, id, one, **how) for name, one in alone.items()}
    return {name: view.nats + view.hidden_nats for name, view in found.items()}
