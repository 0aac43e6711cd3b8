"""The page of an explanation: pictures, the gap by noise level, and sentences; one file, without a script."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from markupsafe import Markup
from torch import Tensor
from torch.nn import functional as F

from diffcern.data import encode_png
from diffcern.explaining import BANDS, Explanation
from diffcern.report.drawing import new_figure, to_svg
from diffcern.report.templates import template

if TYPE_CHECKING:
    from diffcern.jobs.explain import Told

FOR, AGAINST = (0.0, 0.45, 0.70), (0.84, 0.37, 0.0)  # blue and orange: told apart by everybody
STRONGEST = 0.98  # of the gaps, by size, at which a colour is full
SHARPEST = 64  # images up to this size are enlarged without smoothing


@dataclass(frozen=True)
class Picture:
    """What the page shows of one image. seen: name and picture under each hypothesis, the likeliest first."""

    id: str
    error: str | None
    image: str = ""
    seen: tuple[tuple[str, str], ...] = ()
    overlay: str = ""
    levels: str = ""  # markup
    words: tuple[str, ...] = ()
    rows: tuple[tuple[str, float, float, float], ...] = ()  # name, error, difference to the first, its standard error
    evaluations: int = 0
    pixelated: bool = False


def page(told: Sequence[Told], prior: str) -> str:
    """HTML of all of them."""
    return template("explained.html.j2").render(
        pictures=[picture(each, number) for number, each in enumerate(told)], prior=prior
    )


def picture(told: Told, number: int = 0) -> Picture:
    """What is shown of one image; number: on its page."""
    found, image = told.explanation, told.image
    if found is None or image is None:
        return Picture(told.id, told.error)
    rows = [(told.names[k], float(found.errors[k].mean()), *found.behind(k)) for k in found.order]
    return Picture(
        told.id,
        None,
        data_uri(image),
        tuple((told.names[k], data_uri(found.seen[k])) for k in found.order),
        data_uri(overlay(image, found.gaps)),
        Markup(levels(found, f"levels-{number}")),
        tuple(found.in_words(told.names)),
        tuple(rows),
        told.evaluations,
        max(image.shape[-2:]) <= SHARPEST,
    )


def overlay(image: Tensor, gaps: Tensor) -> Tensor:
    """`[3, h, w]`: the picture in grey, blue where it speaks for the first, orange where for the runner-up."""
    fitted = F.interpolate(gaps[None, None], tuple(image.shape[-2:]), mode="bilinear", antialias=True)[0, 0]
    strength = (fitted.abs() / fitted.abs().flatten().quantile(STRONGEST).clamp(min=1e-12)).clamp(0, 1)
    grey = (image.mean(0, keepdim=True) * 0.6 + 0.2).expand(3, -1, -1)
    colours = torch.tensor([FOR, AGAINST]).view(2, 3, 1, 1)
    tint = torch.where(fitted > 0, colours[0], colours[1])
    return grey + (tint - grey) * (0.85 * strength)


def levels(found: Explanation, name: str) -> str:
    """SVG: the gap of the runner-up to the first in each band of noise levels, with 95 % intervals."""
    with new_figure(2.3) as (figure, axes):
        axes.axhline(0, color="#0b0b0b", linewidth=0.8)
        for band in found.bands:
            if band.gap is None or band.ends is None:
                continue
            middle = (band.low + band.high) / 2
            axes.bar(middle, band.gap, 0.8 / BANDS, color="#0072b2" if band.gap > 0 else "#d55e00", alpha=0.75)
            axes.plot([middle, middle], band.ends, color="#0c0c0c", linewidth=1.1)
        axes.set_xlim(0, 1)
        axes.set_xlabel("noise level t (0: the image, 1: noise alone)")
        axes.set_ylabel("error of the runner-up\nminus that of the first")
        axes.grid(axis="y")
        return to_svg(figure, name, ())


def data_uri(image: Tensor) -> str:
    return "data:image/png;base64," + base64.b64encode(encode_png(image.clamp(0, 1))).decode()
