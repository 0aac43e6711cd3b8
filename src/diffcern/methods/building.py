"""A method from its class and the models at hand: the one place where what it takes and what there is meet."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from diffcern.errors import UsageError
from diffcern.methods.base import Method
from diffcern.methods.options import checked
from diffcern.predictors.base import Predictor
from diffcern.priors.base import Prior
from diffcern.tasks import Task


def needed(cls: type, model: str) -> bool:
    """Whether the class cannot be built without that model: "predictor", "prior" or "task"."""
    parameter = inspect.signature(cls).parameters.get(model)
    return parameter is not None and parameter.default is parameter.empty


def build(
    cls: type[Method],
    name: str,
    others: Mapping[str, type[Method]],
    predictor: Predictor | None,
    prior: Prior | None,
    task: Task | None,
    options: Mapping[str, Any],
) -> Method:
    """name: what messages call the method; others: what could stand in its place. Raises as `methods.build_method`."""
    models = {"predictor": predictor, "prior": prior, "task": task}
    for model, value in models.items():
        if value is None and needed(cls, model):
            raise UsageError(f"{name} needs a {model}: give one (--{model} on a command line)")
    takes = inspect.signature(cls).parameters
    taken = {model: value for model, value in models.items() if model in takes and value is not None}
    if task is not None and task.name not in cls.tasks:
        able = ", ".join(known for known, other in others.items() if task.name in other.tasks)
        raise UsageError(f"{name} is not for {task.name}; these are: {able}")
    if cls.told and {"prior", "task"} <= taken.keys() and prior is not None and task is not None:
        task.check(prior)
    return cls(**taken, **checked(cls, name, options))
