"""What a prior's folder says of clean images, in percentiles: their denoising errors (`diffcern.familiarity`), and by
how many nats a view of them gets likelier (`diffcern.clean_gains`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from diffcern.configs import read_config
from diffcern.files import write_whole
from diffcern.priors.base import Prior

ERRORS, GAINS = "clean_errors.json", "clean_gains.json"


def _ascending(values: tuple[float, ...]) -> tuple[float, ...]:
    if list(values) != sorted(values):
        raise ValueError("percentiles, which do not fall")
    return values


Value = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Percentiles = Annotated[tuple[Value, ...], Field(min_length=101, max_length=101), AfterValidator(_ascending)]


def write_clean(prior: Prior, folder: Path) -> None:
    """Writes `clean_errors.json` and `clean_gains.json`, where the prior has any."""
    if prior.clean_errors is not None:
        _write(folder / ERRORS, _rounded(prior.clean_errors, 6))
    if prior.clean_gains:
        write_clean_gains(prior.clean_gains, folder)


def write_clean_gains(gains: Mapping[str, Tensor], folder: Path) -> Path:
    """Over what the folder keeps of other families."""
    kept = {**read_clean_gains(folder), **gains}
    _write(folder / GAINS, {name: _rounded(kept[name], 1) for name in sorted(kept)})
    return folder / GAINS


def read_clean(prior: Prior, folder: Path) -> None:
    """Into the prior what `write_clean` wrote. Raises DiffcernError for another content."""
    prior.clean_errors, prior.clean_gains = read_clean_errors(folder), read_clean_gains(folder)


def read_clean_errors(folder: Path) -> Tensor | None:
    """None for nothing. Raises DiffcernError for another content."""
    path = folder / ERRORS
    if not path.is_file():
        return None
    return torch.tensor(read_config(path, Percentiles, "It is a list of 101 percentiles, or left out"))


def read_clean_gains(folder: Path) -> dict[str, Tensor]:
    """By family of views. Raises DiffcernError for another content."""
    path = folder / GAINS
    if not path.is_file():
        return {}
    advice = "It is a list of 101 percentiles for each family of views: delete it, and run `diffcern calibrate views`"
    found: dict[str, tuple[float, ...]] = read_config(path, dict[str, Percentiles], advice)
    return {name: torch.tensor(values) for name, values in found.items()}


def _rounded(values: Tensor, digits: int) -> list[float]:
    return [round(value, digits) for value in values.tolist()]


def _write(path: Path, content: object) -> None:
    write_whole(path, (json.dumps(content) + "\n").encode())
