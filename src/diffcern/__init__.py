"""diffcern: pre-trained diffusion models as a second opinion on what an image shows.

    import diffcern

    predictor, prior = diffcern.load_predictor("embedded:digits"), diffcern.load_prior("embedded:digits")
    model = diffcern.adapt(predictor, prior)        # a torch module: adapts to each image, then predicts
    logits = model(images)                          # [B, 3, H, W] in [0, 1] -> [B, K]

What is listed in `__all__` is the public interface; everything else may move.
Each name is imported when it is first used, so that `diffcern --help` does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffcern.adapted import AdaptedModel, adapt
    from diffcern.data import load_dataset
    from diffcern.data.shifts import shift
    from diffcern.draws import Draws, draw
    from diffcern.errors import DiffcernError, UsageError
    from diffcern.jobs import Interrupted
    from diffcern.jobs.calls import align, answer, bench, classify, explain, match, purify
    from diffcern.likelihood import condition_gradient, score
    from diffcern.methods import METHODS, build_method
    from diffcern.methods.presets import preset_options
    from diffcern.predictors import Predictor, load_predictor
    from diffcern.priors import GaussianMixturePrior, Prior, load_prior
    from diffcern.tasks import Classification
    from diffcern.types import Condition, Cost, Denoised, Inputs, Prediction, Record

__version__ = "0.1.0"

_HOMES = {
    "diffcern.adapted": (
        "AdaptedModel",
        "adapt",
    ),
    "diffcern.data": ("load_dataset",),
    "diffcern.data.shifts": ("shift",),
    "diffcern.draws": (
        "Draws",
        "draw",
    ),
    "diffcern.errors": (
        "DiffcernError",
        "UsageError",
    ),
    "diffcern.jobs": ("Interrupted",),
    "diffcern.jobs.calls": (
        "align",
        "answer",
        "bench",
        "classify",
        "explain",
        "match",
        "purify",
    ),
    "diffcern.likelihood": (
        "condition_gradient",
        "score",
    ),
    "diffcern.methods": (
        "METHODS",
        "build_method",
    ),
    "diffcern.methods.presets": ("preset_options",),
    "diffcern.predictors": (
        "Predictor",
        "load_predictor",
    ),
    "diffcern.priors": (
        "GaussianMixturePrior",
        "Prior",
        "load_prior",
    ),
    "diffcern.tasks": ("Classification",),
    "diffcern.types": (
        "Condition",
        "Cost",
        "Denoised",
        "Inputs",
        "Prediction",
        "Record",
    ),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "METHODS",
    "AdaptedModel",
    "Classification",
    "Condition",
    "Cost",
    "Denoised",
    "DiffcernError",
    "Draws",
    "GaussianMixturePrior",
    "Inputs",
    "Interrupted",
    "Prediction",
    "Predictor",
    "Prior",
    "Record",
    "UsageError",
    "adapt",
    "align",
    "answer",
    "bench",
    "build_method",
    "classify",
    "condition_gradient",
    "draw",
    "explain",
    "load_dataset",
    "load_predictor",
    "load_prior",
    "match",
    "preset_options",
    "purify",
    "score",
    "shift",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'diffcern' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
