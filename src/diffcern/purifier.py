"""Images in, purified images out: a prior with fixed settings, and the images it has purified before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from diffcern.cache import TensorCache
from diffcern.fingerprints import content_id, digest, fingerprint
from diffcern.guides import Guide
from diffcern.priors import Prior
from diffcern.resizing import Images
from diffcern.sampling import purify
from diffcern.solvers import Solver


@dataclass(frozen=True)
class Route:
    """How far an image is noised and how it comes back. start: a timestep of the prior; eta: DDIM's; clip: keep
    estimates in the range of pixels, where latents are these."""

    start: int
    steps: int
    solver: str = "ddpm"
    eta: float = 0.0
    clip: bool = True

    def evaluations(self, prior: Prior) -> int:
        """Denoiser evaluations per image. Raises UsageError where the route does not fit the prior."""
        return len(Solver(prior, self.solver, self.start, self.steps, self.eta).timesteps)


class Purifier:
    """Purifies images in [0, 1] to the prior's own resolution, in memory: no file format between.

    settings: the plain values that the guide was made from, which with route, prior, image, id and seed name an
    entry of the cache. Raises UsageError where route or guide do not fit the prior.
    """

    def __init__(
        self,
        prior: Prior,
        route: Route,
        guide: Guide | None = None,
        settings: Mapping[str, Any] | None = None,
        cache: TensorCache | None = None,
        rows: int = 64,
    ) -> None:
        self.prior, self.route, self.guide, self.cache, self.rows = prior, route, guide, cache, rows
        self.settings = dict(settings or {})
        self.evaluations = route.evaluations(prior)
        if guide is not None:
            guide.check(prior)

    @cached_property
    def identity(self) -> str:
        """Names the prior and all settings, as `digest` does."""
        return digest({"prior": fingerprint(self.prior), "route": vars(self.route), **self.settings})

    def __call__(self, images: Images, ids: Sequence[str], seed: int = 0) -> Tensor:
        """A batch `[B, 3, H, W]`, or B images of any sizes -> `[B, 3, h, w]` in [0, 1], fp32.

        All that an image shows is squeezed into the prior's square: give it the part that matters
        (`Predictor.view`)."""
        if self.cache is None:
            return self._purify(images, ids, seed)
        keys = [digest([self.identity, content_id(image), id, seed]) for image, id in zip(images, ids, strict=True)]
        found = [self.cache.get(key) for key in keys]
        missing = [i for i, value in enumerate(found) if value is None]
        if missing:
            made = self._purify([images[i] for i in missing], [ids[i] for i in missing], seed)
            for i, value in zip(missing, made, strict=True):
                self.cache.put(keys[i], value)
                found[i] = value
        return torch.stack([value.to(images[0].device) for value in found if value is not None])

    def _purify(self, images: Images, ids: Sequence[str], seed: int) -> Tensor:
        encoded = self.prior.latents(images)
        latents = purify(self.prior, encoded, ids, guide=self.guide, seed=seed, rows=self.rows, **vars(self.route))
        return self.prior.decode(latents)
