"""Images in, purified images out: a prior with fixed settings, and the images it has purified before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from diffcern.cache import TensorCache
from diffcern.errors import UsageError
from diffcern.evidence import check_pixels
from diffcern.fingerprints import content_id, digest, fingerprint
from diffcern.guides import Guide
from diffcern.noise_levels import MOST, noise_level, time_of
from diffcern.priors import Prior
from diffcern.resizing import Images
from diffcern.sampling import purify
from diffcern.solvers import Solver

Start = int | Literal["auto"]
MASKED = 1.0  # times the noise in the image: more would hide what is left of it


@dataclass(frozen=True)
class Route:
    """How far an image is noised and how it comes back. start: a timestep of the prior, or "auto", for each image where
    the schedule's noise is `MASKED` times the noise that the prior finds in it (`noise_levels.py`); an image without
    any is brought to the prior's size and left at that. eta: DDIM's; clip: keep estimates in the range of pixels,
    where latents are these. noise: in the image already, so much less is added."""

    start: Start
    steps: int
    solver: str = "ddpm"
    eta: float = 0.0
    clip: bool = True
    noise: float = 0.0

    def evaluations(self, prior: Prior) -> int:
        """Denoiser evaluations per image, at most. Raises UsageError where the route does not fit the prior."""
        if self.start == "auto":
            check_pixels(prior)
            return MOST + replace(self, start=prior.num_timesteps // 2).evaluations(prior)
        return len(Solver(prior, self.solver, self.start, self.steps, self.eta).timesteps)

    def of_image(self, prior: Prior, latent: Tensor, id: str, seed: int) -> Path:
        """Of one latent `[1, C, h, w]`, by the noise in it."""
        level = noise_level(prior, latent, id, seed)
        route = self.from_noise(prior, level.noise)
        return Path(route, level.evaluations + (route.evaluations(prior) if route else 0))

    def from_noise(self, prior: Prior, noise: float) -> Route | None:
        """From the level of this noise, None where it has none."""
        start = int(time_of(prior, MASKED * noise) * prior.num_timesteps)
        if not (noise and start):
            return None
        return replace(self, start=start, steps=min(self.steps, start + 1), noise=noise)


@dataclass(frozen=True)
class Path:
    """Of one image: its route, None where it stays as it is; evaluations: of the denoiser, finding it included."""

    route: Route | None
    evaluations: int


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
        return digest({"prior": fingerprint(self.prior), "route": _told(self.route), **self.settings})

    def paths(self, images: Images, ids: Sequence[str], seed: int = 0) -> list[Path]:
        """How each image will go, for `__call__`, and what that takes."""
        if self.route.start != "auto":
            return [Path(self.route, self.evaluations)] * len(ids)
        latents = self.prior.latents(images).split(1)
        return [self.route.of_image(self.prior, *each, seed) for each in zip(latents, ids, strict=True)]

    def __call__(
        self, images: Images, ids: Sequence[str], seed: int = 0, paths: Sequence[Path] | None = None
    ) -> Tensor:
        """A batch `[B, 3, H, W]`, or B images of any sizes -> `[B, 3, h, w]` in [0, 1], fp32.

        All that an image shows is squeezed into the prior's square: give it the part that matters
        (`Predictor.view`). paths: what `paths` said of these."""
        if len(ids) != len(images):
            raise UsageError(f"one id for each image: {len(images)} images, {len(ids)} ids")
        paths = paths or self.paths(images, ids, seed)
        if self.cache is None:
            return self._purify(images, ids, seed, paths)
        keys = [digest([self.identity, content_id(image), id, seed]) for image, id in zip(images, ids, strict=True)]
        found = [self.cache.get(key) for key in keys]
        missing = [i for i, value in enumerate(found) if value is None]
        if missing:
            left = [images[i] for i in missing], [ids[i] for i in missing]
            made = self._purify(*left, seed, [paths[i] for i in missing])
            for i, value in zip(missing, made, strict=True):
                self.cache.put(keys[i], value)
                found[i] = value
        return torch.stack([value.to(images[0].device) for value in found if value is not None])

    def _purify(self, images: Images, ids: Sequence[str], seed: int, paths: Sequence[Path]) -> Tensor:
        """Images of one route side by side."""
        encoded = self.prior.latents(images)
        how: dict[str, Any] = {"guide": self.guide, "seed": seed, "rows": self.rows}
        latents = encoded.clone()
        for route in {path.route for path in paths if path.route}:
            mine = [i for i, path in enumerate(paths) if path.route == route]
            latents[mine] = purify(self.prior, encoded[mine], [ids[i] for i in mine], **how, **vars(route))
        return self.prior.decode(latents)


def _told(route: Route) -> dict[str, Any]:
    """What names a route: noise that is in an image is not told, but found."""
    return {name: value for name, value in vars(route).items() if name != "noise"}
