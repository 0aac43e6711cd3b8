"""Families of transformations that undo what an image may have gone through: candidates for its canonical view.

A family has a coarse grid, neighbours at ever smaller steps, and the fields of a transformation that it sets. Light,
colour and haze look at the image: their grids use up what brightness is unused, so that any contrast is in reach and
an image that uses all of it has few candidates or none.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from diffcern.transformations import Three, Transformation

PARTS = (0.0, 0.5, 1.0)  # of what is unused at either end, and of a colour cast
FLAT = 0.02  # a range of brightness that is not stretched, five steps of eight bits: of a constant image
HAZE = 8  # cells along a side, of each of which the darkest number is looked at
HAZES = (0.5, 0.75, 1.0)  # of that, what is taken off
CONTRASTS = (1.0, 0.85, 0.7)  # of the gain that a picture has room for
GAMMAS = (0.5, 0.7, 1.4, 2.0)
BLURS = (0.02, 0.03, 0.045)  # standard deviations, in sides of the image
TURNS = (-45.0, -30.0, -15.0, 15.0, 30.0, 45.0)
SCALES = (0.75, 0.87, 1.15, 1.33)
SHIFTS = (0.1, 0.2)  # of a side


@dataclass(frozen=True)
class Family:
    """grid: coarse candidates over the best so far, of an image `[1, 3, H, W]` in [0, 1], `size` of them at most.
    around: its neighbours at a step of 1, 1/2 ... fields: those that it sets. low: times below are not looked at. A
    picture of pixels that was turned has steps in it that no photo has: it is compared where noise covers these."""

    fields: tuple[str, ...]
    grid: Callable[[Transformation, Tensor], list[Transformation]]
    around: Callable[[Transformation, float], list[Transformation]]
    size: int
    low: float

    def like(self, best: Transformation, other: Transformation) -> Transformation:
        """The best so far with what the family did to another image."""
        return replace(best, **{name: getattr(other, name) for name in self.fields})


def _stretched(best: Transformation, low: Tensor, high: Tensor, below: float, above: float) -> Transformation | None:
    """This part of what no number of a channel uses, below and above, is used; low, high: of each channel `[3]`."""
    floor, ceiling = below * low.clamp(min=0), 1 - above * (1 - high).clamp(min=0)
    if (ceiling - floor).min() < FLAT:
        return None
    return _scaled(best, 1 / (ceiling - floor), floor)


def _scaled(best: Transformation, gain: Tensor, floor: Tensor | float = 0.0) -> Transformation:
    """After the best so far: what is at the floor goes to black, and then each channel is multiplied."""
    return replace(
        best,
        gain=_three(torch.tensor(best.gain) * gain),
        offset=_three((torch.tensor(best.offset) - floor) * gain),
    )


def _three(values: Tensor) -> Three:
    first, second, third = values.tolist()
    return first, second, third


def _lights(best: Transformation, image: Tensor) -> list[Transformation]:
    seen = best.apply(image)
    low, high = seen.amin().cpu().expand(3), seen.amax().cpu().expand(3)
    if (high - low).max() < FLAT:
        return []
    pairs = itertools.product(PARTS, PARTS)
    found = (_stretched(best, low, high, below, above) for below, above in pairs)
    return [candidate for candidate in found if candidate]


def _lights_around(best: Transformation, step: float) -> list[Transformation]:
    """Gains apart by a quarter of the step, floors by 0.08 of it."""
    factors, moves = (1 + 0.25 * step, 1 / (1 + 0.25 * step)), (0.08 * step, -0.08 * step)
    return [_scaled(best, torch.full((3,), by)) for by in factors] + [
        _scaled(best, torch.ones(3), move) for move in moves
    ]


def _colours(best: Transformation, image: Tensor) -> list[Transformation]:
    """Parts of the way to channels of equal means (grey world), and to each channel's own full range; contrast."""
    channels = best.apply(image)[0].flatten(1).cpu()
    if (channels.amax(1) - channels.amin(1)).max() < FLAT:
        return []
    ranges = (_stretched(best, channels.amin(1), channels.amax(1), part, part) for part in PARTS[1:])
    greys = (grey_world(best, image, part) for part in PARTS[1:])
    return [*(each for each in ranges if each), *greys, *_contrasts(best, channels)]


def _contrasts(best: Transformation, channels: Tensor) -> list[Transformation]:
    """One gain for all channels, about the mean of each: as much as nothing is clipped by, and parts of that."""
    means, low, high = channels.mean(1), channels.amin(1), channels.amax(1)
    room = torch.cat([(1 - means) / (high - means).clamp(min=1e-3), means / (means - low).clamp(min=1e-3)]).min().item()
    gains = [part * room for part in CONTRASTS if part * room > 1]
    return [_scaled(best, torch.full((3,), gain), means * (1 - 1 / gain)) for gain in gains]


def grey_world(best: Transformation, image: Tensor, part: float) -> Transformation:
    """This part of the way to equal means of the channels; darker where something would be clipped."""
    channels = best.apply(image)[0].flatten(1).cpu()
    means = channels.mean(1).clamp(min=1e-3)
    gain = (means.mean() / means) ** part
    return _scaled(best, gain / (gain * channels.amax(1)).max().clamp(min=1.0))


def _colours_around(best: Transformation, step: float) -> list[Transformation]:
    unit = torch.eye(3)
    return [_scaled(best, (1 + 0.15 * step) ** (sign * unit[channel])) for channel in range(3) for sign in (1, -1)]


def _hazes(best: Transformation, image: Tensor) -> list[Transformation]:
    """Parts of the darkest number around each place (the dark channel of He, Sun & Tang 2009) are taken off, and the
    brightest number is as bright as before."""
    if best.veil or best.gamma != 1 or best.sharpen:
        return []  # of light alone
    light = Transformation(best.gain, best.offset)
    seen = light.apply(image).cpu()
    darkest = -F.adaptive_max_pool2d(-seen.amin(1), HAZE)
    around = -F.max_pool2d(-F.pad(darkest, (1, 1, 1, 1), mode="replicate"), 3, 1)  # so that nothing falls below 0
    found = []
    for part in HAZES:
        veil = tuple((part * around / torch.tensor(best.gain)[:, None, None]).flatten().tolist())
        peak = replace(light, veil=veil).apply(image).amax().item()
        if peak > FLAT:
            found.append(_scaled(replace(best, veil=veil), torch.full((3,), seen.amax().item() / peak)))
    return found


def _hazes_around(best: Transformation, step: float) -> list[Transformation]:
    factors = (1 + 0.15 * step, 1 / (1 + 0.15 * step)) if best.veil else ()
    return [replace(best, veil=tuple(by * value for value in best.veil)) for by in factors]


def _times(name: str, factors: tuple[float, ...]) -> Callable[[Transformation, Tensor], list[Transformation]]:
    """A grid of a number that multiplies."""
    return lambda best, image: [replace(best, **{name: getattr(best, name) * factor}) for factor in factors]


def _around(name: str, apart: float) -> Callable[[Transformation, float], list[Transformation]]:
    """Its neighbours."""
    return lambda best, step: [
        replace(best, **{name: getattr(best, name) * by}) for by in (1 + apart * step, 1 / (1 + apart * step))
    ]


def _shifted(best: Transformation, by: float) -> list[Transformation]:
    right, down = best.shift
    return [replace(best, shift=(right + x, down + y)) for x, y in ((by, 0.0), (-by, 0.0), (0.0, by), (0.0, -by))]


FAMILIES = {
    "light": Family(("gain", "offset"), _lights, _lights_around, 9, 0.1),
    "colour": Family(("gain", "offset"), _colours, _colours_around, 4 + len(CONTRASTS), 0.1),
    "haze": Family(("veil", "gain", "offset"), _hazes, _hazes_around, len(HAZES), 0.1),
    "gamma": Family(("gamma",), _times("gamma", GAMMAS), _around("gamma", 0.2), len(GAMMAS), 0.1),
    "sharpen": Family(
        ("sharpen",),
        lambda best, image: [replace(best, sharpen=sigma) for sigma in BLURS],
        _around("sharpen", 0.25),
        len(BLURS),
        0.1,
    ),
    "turn": Family(
        ("turn",),
        lambda best, image: [replace(best, turn=angle) for angle in TURNS],
        lambda best, step: [replace(best, turn=best.turn + move) for move in (8 * step, -8 * step)],
        len(TURNS),
        0.3,
    ),
    "flip": Family(("flip",), lambda best, image: [replace(best, flip=not best.flip)], lambda best, step: [], 1, 0.1),
    "scale": Family(("scale",), _times("scale", SCALES), _around("scale", 0.08), len(SCALES), 0.3),
    "shift": Family(
        ("shift",),
        lambda best, image: [view for by in SHIFTS for view in _shifted(best, by)],
        lambda best, step: _shifted(best, SHIFTS[0] / 2 * step),
        4 * len(SHIFTS),
        0.1,
    ),
}
