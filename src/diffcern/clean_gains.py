"""By how many nats is the likeliest view of a clean image likelier than the image as it is?

    margin of a family = the gain that 9 of 10 clean images stay within, and `LEAST` at least

A strong prior knows where to stop: no view of a clean image gains. A weak one takes its mistakes for knowledge, by
hundreds of nats, and a shift is what gains more than that. `diffcern calibrate views` fits it on clean images that
were held out, and keeps the percentiles beside the prior (`clean_gains.json`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from diffcern.errors import DiffcernError

LEAST = 3.0  # nats
SHARE = 0.9  # of the clean images
FEWEST = 20  # images; fewer say next to nothing about their 90th percentile


def margin(gains: Mapping[str, Float[Tensor, " 101"]], family: str) -> float:
    """Of a prior with these percentiles; `LEAST` for a family that they leave out."""
    known = gains.get(family)
    return LEAST if known is None else max(LEAST, known[round(100 * SHARE)].item())


def check_count(images: int) -> None:
    """Raises DiffcernError for fewer than `FEWEST`."""
    if images < FEWEST:
        raise DiffcernError(f"margins take {FEWEST} clean images or more, not {images}: give more")


def percentiles(gains: Sequence[Mapping[str, float]]) -> dict[str, Float[Tensor, " 101"]]:
    """0, 1, ..., 100 of each family. Raises DiffcernError for fewer than `FEWEST` images."""
    check_count(len(gains))
    share = torch.linspace(0, 1, 101)
    of = {name: torch.tensor([each[name] for each in gains], dtype=torch.float32) for name in gains[0]}
    return {name: values.quantile(share) for name, values in of.items()}
