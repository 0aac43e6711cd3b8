"""Published values, and values for small models, of each method's options.

"paper" is the constructors' own defaults. "small" was chosen for the embedded models on the validation splits of the
digits (by `benchmarks/tune.py`) and, for maps and questions, of the scenes; reported figures use the test splits. It
serves the other small priors in `weights/`.
"""

from __future__ import annotations

from typing import Any

from diffcern.errors import unknown
from diffcern.methods import METHODS

FEEDBACK = {
    "steps": 5,
    "draws": 16,
    "strategy": "stratified",
    "weighting": "x0",
    "optimizer": "sgd",
    "learning_rate": 0.05,
    "temperature": 2.0,
}
FROZEN = {"adapt_prior": False}  # of methods that move the prior too where that was published
SMALL: dict[str, dict[str, Any]] = {
    "diffusion-tta": {**FEEDBACK, **FROZEN},
    "sda-tta": FEEDBACK,
    "dusa": {**FROZEN, "others": "uniform"},
    "memo": {"views": 32, "learning_rate": 1e-3, "crops": "none"},
    "diffpure": {"start": 199, "steps": 10, "solver": "ddpm", "clip": True},
    "dda": {"start": 399, "steps": 20, "weight": 0.1, "form": "estimate", "border": "inside", "bounded": False},
    "gda": {
        "start": 399,
        "steps": 20,
        "form": "estimate",
        "scaled": False,
        "mixed": False,
        "entropy": 0.01,
        "mse": 100.0,
    },
    "diffusion-classifier": {"draws": 16, "weighting": "x0"},
}
MAPS: dict[str, dict[str, Any]] = {  # of feedback to predictors of maps
    "segmentation": {"learning_rate": 0.2},
    "depth": {"optimizer": "adam", "learning_rate": 1e-4, "temperature": 1.0},
}
GENTLE = {"start": 199, "weight": 0.4}  # of DDA: coarser images cost maps and places more than they cost a class
QUESTIONS = "question answering"  # a task in the sense of `preset_options`
BY_TASK: dict[tuple[str, str], dict[str, dict[str, Any]]] = {  # over those of a preset
    ("small", task): {"diffusion-tta": options, "sda-tta": options, "dda": GENTLE} for task, options in MAPS.items()
} | {("small", QUESTIONS): {"dda": GENTLE}}
PRESETS: dict[str, dict[str, dict[str, Any]]] = {"paper": {}, "small": SMALL}


def preset_options(method: str, preset: str, task: str = "classification") -> dict[str, Any]:
    """The options of a method under a preset for a task; empty where its constructor's defaults are meant.

    task: a predictor's, or `QUESTIONS`. Raises UsageError for an unknown preset.
    """
    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    if method not in METHODS:
        return {}
    return {**PRESETS[preset].get(method, {}), **BY_TASK.get((preset, task), {}).get(method, {})}
