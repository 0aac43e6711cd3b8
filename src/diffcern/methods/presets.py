"""Published values, and values for small models, of each method's options.

"paper" is the constructors' own defaults. "small" stands in the class of each method; it was chosen for the embedded
models on the validation splits of the digits (by `benchmarks/tune.py`) and, for maps and questions, of the scenes;
reported figures use the test splits. It serves the other small priors in `weights/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffcern.errors import UsageError, unknown
from diffcern.methods import method_class
from diffcern.methods.options import over

PRESETS = ("paper", "small")


def preset_options(method: str, preset: str, task: str = "classification") -> dict[str, Any]:
    """The options of a method under a preset for a task; empty where its constructor's defaults are meant.

    task: a predictor's, or `kinds.QUESTION_ANSWERING`. Raises UsageError for an unknown preset.
    """
    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    if preset == "paper":
        return {}
    try:
        cls = method_class(method)
    except UsageError:  # said where the method is built
        return {}
    return cls.small_options(task)


def over_preset(method: str, preset: str, given: Mapping[str, Any], task: str = "classification") -> dict[str, Any]:
    """The options of a preset with those that were given in their place.

    Raises as `preset_options` and `over`.
    """
    return over(preset_options(method, preset, task), given, f"the preset {preset!r} of {method}")
