"""What hides a part of a picture from view, a flat patch, specks or a dark ground, and what is behind it.

    log p(y) = log p(uncovered) - log p(uncovered where hidden | visible) + log p(what hides it)

Where the prior is sure of what is behind, the second is the density of the noise n alone that is laid on all that is
compared (`weighing.py`). What hides it is a Gaussian of its own mean and variance v, so that each hidden number costs

    1/2 log (n^2 + v) / n^2        a patch of one colour nothing, specks of black and white the more

and the mask itself the logarithm of how many there are of its kind. Suspects are numbers that the prior, which sees the
picture behind some noise, expects otherwise: behind patches and specks it paints; a ground is black, and what is
lighter is stretched to all of the range. Who wants to answer on what is uncovered asks whether that is likelier.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float32
from torch import Tensor
from torch.nn import functional as F

from diffcern.evidence import points
from diffcern.noise_levels import loud_noise, noise_of, time_of
from diffcern.priors.base import Prior
from diffcern.types import Condition

SEEN = (0.25, 0.4)  # parts of the times at which the prior says what it expects
STRANGE = 0.5  # of a latent, by which a speck differs from that
SUSPECT = 0.2  # and the numbers of a patch, in the root of their mean square
MOST_SPECKS = 0.4  # of the numbers; what is less visible is not guessed at
SIDES = tuple(part / 16 for part in range(3, 9))  # of a patch, in sides of the picture
CELLS = 32  # along a side, at most, in which patches are looked for
EVEN = 0.04  # of the range of the picture, within which a patch is of one colour: ten steps of eight bits
PATCHES = 2  # that are painted, the most suspect
APART = 0.5  # of the smaller one, which two of them share at most
PAINTED = (0.7, 0.2)  # parts of the times at which the prior paints, one after the other
GROUNDS = (0.15, 0.25, 0.35)  # of [0, 1], what is darker is one
LIT = 0.25  # of that, as light as its numbers are in the mean, or it is black
SMOOTH = 0.5  # of their deviation, what is noise in them at most
CANDIDATES = PATCHES + 1 + len(GROUNDS)
COST = len(SEEN) + (PATCHES + 1) * len(PAINTED)  # evaluations, at most


@dataclass(frozen=True, eq=False)
class Mask:
    """hidden: 1 where a latent `[1, C, h, w]` does not show the picture. code: nats that it costs to say so. ground:
    what is darker in [0, 1] is black, and the rest is stretched; 0 for masks behind which the prior paints."""

    hidden: Float32[Tensor, "1 channels rows columns"]
    code: float
    ground: float = 0.0


@dataclass(frozen=True, eq=False)
class Hidden:
    """latent: uncovered. noise: that is in it by itself; of `suspects` at most, for a ground takes none away. counts,
    variances: of what hides it, of each channel."""

    mask: Mask
    latent: Float32[Tensor, "1 channels rows columns"]
    noise: float
    counts: Float32[Tensor, " channels"]
    variances: Float32[Tensor, " channels"]

    @property
    def share(self) -> float:
        """Of the numbers, those that are hidden."""
        return self.mask.hidden.mean().item()

    @property
    def stretch(self) -> float:
        """What a visible number is multiplied by."""
        return 1 / (1 - self.mask.ground)

    def lifted(self, images: Float32[Tensor, "batch 3 rows columns"]) -> Float32[Tensor, "batch 3 rows columns"]:
        """Without their ground, in [0, 1]."""
        return ((images - self.mask.ground) * self.stretch).clamp(min=0) if self.mask.ground else images

    def nats(self, loud: float) -> float:
        """What it adds to the likelihood of what is uncovered, under this noise in all: hidden numbers are the cover's,
        and not the prior's, to which what was painted is as noisy as what is laid on it alone."""
        whole, laid = (loud / self.stretch) ** 2, (loud**2 - self.noise**2) / self.stretch**2
        each = ((self.variances + laid) / whole).log() + 1 - laid / whole
        return -(self.counts / 2 * each).sum().item() - self.mask.code


def suspects(
    prior: Prior, latent: Float32[Tensor, "1 channels rows columns"], id: str, seed: int
) -> tuple[list[Hidden], int]:
    """What may hide parts of this latent, and the evaluations of finding out."""
    unlike = _expected(prior, latent, id, seed) - latent
    covers = [*_patches(latent, unlike), *_specks(unlike)]
    painted = _painted(prior, latent, covers, id, seed) if covers else []
    grounds = [*_grounds(latent)]
    lifted = [
        torch.where(mask.hidden > 0, -1.0, (latent + 1 - 2 * mask.ground) / (1 - mask.ground) - 1) for mask in grounds
    ]
    found = [
        Hidden(mask, own, math.inf if mask.ground else loud_noise(own), *_spread(latent, mask.hidden))
        for mask, own in zip([*covers, *grounds], [*painted, *lifted], strict=True)
    ]
    return found, len(SEEN) + len(covers) * len(PAINTED)


def _expected(prior: Prior, latent: Tensor, id: str, seed: int) -> Tensor:
    """The mean of what the prior sees behind some noise."""
    drawn = _noises(latent, id + "/seen", len(SEEN), seed)
    return torch.stack([_denoised(prior, latent, part, drawn[k]) for k, part in enumerate(SEEN)]).mean(0)


def _painted(prior: Prior, latent: Tensor, covers: Sequence[Mask], id: str, seed: int) -> Sequence[Tensor]:
    """What is visible stays; the rest is what the prior sees there, behind less and less noise."""
    masks = torch.cat([mask.hidden for mask in covers])
    drawn, now = _noises(latent, id + "/painted", len(PAINTED), seed), (1 - masks) * latent
    least = time_of(prior, noise_of(latent))
    for k, part in enumerate(PAINTED):
        now = torch.where(masks > 0, _denoised(prior, now, max(part, least), drawn[k]), latent)
    return now.split(1)


@torch.no_grad()
def _denoised(prior: Prior, latents: Tensor, part: float, noise: Tensor) -> Tensor:
    """What the prior sees in latents at a part of the times, in the range of pixels."""
    timesteps = torch.full((len(latents),), int(part * prior.num_timesteps), device=latents.device)
    alpha, sigma = prior.alpha_sigma(timesteps)
    return prior(alpha * latents + sigma * noise, timesteps, Condition()).x0.clamp(-1, 1)


def _noises(latent: Tensor, key: str, count: int, seed: int) -> Tensor:
    return points(latent, [key], count, strategy="van-der-corput", seed=seed).noise[0]


def _spread(latent: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """How many numbers of each channel are hidden, and their variance."""
    counts = mask.flatten(2).sum(2)[0]
    of = counts.clamp(min=1)
    mean = (latent * mask).flatten(2).sum(2)[0] / of
    squares = ((latent - mean[None, :, None, None]).square() * mask).flatten(2).sum(2)[0]
    return counts.cpu(), (squares / of).cpu()


def _specks(unlike: Tensor) -> Iterator[Mask]:
    """Numbers by themselves that are as nobody expects, and the nats of saying which."""
    mask = unlike.abs() > STRANGE
    size, count = mask.numel(), int(mask.sum())
    if 0 < count <= MOST_SPECKS * size:
        yield Mask(mask.float(), math.lgamma(size + 1) - math.lgamma(count + 1) - math.lgamma(size - count + 1))


def _grounds(latent: Tensor) -> Iterator[Mask]:
    """What is darker than some points, where that is not black already, nor noise that was clipped at black."""
    noise = noise_of(latent)
    for ground in GROUNDS:
        dark = (latent + 1) / 2 < ground
        numbers = latent[dark]
        lit = len(numbers) > 1 and (numbers.mean() + 1) / 2 > LIT * ground
        if lit and not dark.all() and noise < SMOOTH * numbers.std():
            yield Mask(dark.float(), math.log(len(GROUNDS)), ground)


def _patches(latent: Tensor, unlike: Tensor) -> Iterator[Mask]:
    """Rectangles of one colour in which the prior expects something else, the most suspect first; in larger latents of
    whole cells, `CELLS` along a side."""
    cells = min(CELLS, latent.shape[-2]), min(CELLS, latent.shape[-1])
    high, low = F.adaptive_max_pool2d(latent, cells), -F.adaptive_max_pool2d(-latent, cells)
    squares = F.adaptive_avg_pool2d(unlike.square(), cells)
    sizes = list(itertools.product(*(sorted({max(2, round(part * side)) for part in SIDES}) for side in cells)))
    scores, contrast = [], latent.amax() - latent.amin()
    for size in sizes:
        even = (F.max_pool2d(high, size, 1) + F.max_pool2d(-low, size, 1)).amax(1)[0] < EVEN * contrast
        square = F.avg_pool2d(squares, size, 1).mean(1)[0]
        scores.append(torch.where(even & (square > SUSPECT**2), square * math.prod(size), 0.0))
    places = sum(score.numel() for score in scores)
    for _ in range(PATCHES):
        score, size = max(zip(scores, sizes, strict=True), key=lambda each: each[0].max().item())
        if score.max() <= 0:
            return
        top, left = divmod(int(score.argmax()), score.shape[1])
        mask = torch.zeros_like(high)
        mask[..., top : top + size[0], left : left + size[1]] = 1
        yield Mask(F.interpolate(mask, latent.shape[-2:]), math.log(places))
        for other, own in zip(scores, sizes, strict=True):
            shared = F.avg_pool2d(mask[0, :1], own, 1)[0] * math.prod(own)
            other[shared > APART * min(math.prod(own), math.prod(size))] = 0
