"""Predictors by name: embedded ones, local folders, and (later) timm, torchvision and transformers."""

from __future__ import annotations

from pathlib import Path

from diffcern.assets import asset, embedded_names
from diffcern.errors import DiffcernError, unknown
from diffcern.predictors.base import Predictor
from diffcern.predictors.native import read_predictor

__all__ = ["Predictor", "load_predictor"]


def load_predictor(name: str) -> Predictor:
    """The predictor that `name` stands for: "embedded:NAME" or a folder made by `diffcern train predictor`.

    Raises UsageError for a name that does not exist, DiffcernError for a folder that cannot be read.
    """
    if name.startswith("embedded:"):
        return read_predictor(asset(name.removeprefix("embedded:"), "predictor"))
    folder = Path(name).expanduser()
    if not folder.exists():
        raise unknown("predictor", name, [f"embedded:{known}" for known in embedded_names("predictor")])
    if not (folder / "predictor.json").is_file():
        raise DiffcernError(f"{folder} is not a predictor: it has no predictor.json (see `diffcern train predictor`)")
    return read_predictor(folder)
