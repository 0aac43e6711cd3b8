"""Priors by name: embedded ones and local folders."""

from __future__ import annotations

from pathlib import Path

from diffcern.assets import asset, embedded_names
from diffcern.errors import DiffcernError, unknown
from diffcern.priors.base import Prior
from diffcern.priors.gaussian import GaussianMixturePrior
from diffcern.priors.native import NativePrior

__all__ = ["GaussianMixturePrior", "NativePrior", "Prior", "load_prior"]


def load_prior(name: str) -> Prior:
    """The prior that `name` stands for: "embedded:NAME" or a folder made by `diffcern train prior`.

    Raises UsageError for a name that does not exist, DiffcernError for a folder that cannot be read.
    """
    if name.startswith("embedded:"):
        return NativePrior.from_pretrained(asset(name.removeprefix("embedded:"), "prior"))
    folder = Path(name).expanduser()
    if not folder.exists():
        raise unknown("prior", name, [f"embedded:{known}" for known in embedded_names("prior")])
    if not (folder / "prior.json").is_file():
        raise DiffcernError(f"{folder} is not a prior: it has no prior.json (see `diffcern train prior`)")
    return NativePrior.from_pretrained(folder)
