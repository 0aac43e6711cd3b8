"""The methods by name, and how one is built from options."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from diffcern.errors import DiffcernError, UsageError, unknown
from diffcern.methods.base import Method
from diffcern.methods.batch_norm import BatchNormAdapt
from diffcern.methods.diffusion_classifier import DiffusionClassifier
from diffcern.methods.diffusion_tta import DiffusionTTA
from diffcern.methods.dusa import Dusa
from diffcern.methods.memo import Memo
from diffcern.methods.purification import DDA, GDA, DiffPure
from diffcern.methods.sda import SDA, SDAWithTTA
from diffcern.methods.source import Source
from diffcern.methods.tent import Tent
from diffcern.methods.ttt_mae import TTTMAE
from diffcern.predictors.base import Predictor
from diffcern.priors.base import Prior
from diffcern.tasks import Task

METHODS: dict[str, type] = {
    "source": Source,
    "bn-adapt": BatchNormAdapt,
    "tent": Tent,
    "memo": Memo,
    "ttt-mae": TTTMAE,
    "diffusion-tta": DiffusionTTA,
    "diffusion-classifier": DiffusionClassifier,
    "dusa": Dusa,
    "diffpure": DiffPure,
    "dda": DDA,
    "gda": GDA,
    "sda": SDA,
    "sda-tta": SDAWithTTA,
}
MODELS = ("predictor", "prior", "task")  # constructor arguments that are no options


def method_class(name: str) -> type:
    """The class for a name in METHODS or a dotted path "my_package.my_module:MyMethod"."""
    if name in METHODS:
        return METHODS[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise unknown("method", name, METHODS)
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"cannot import the method {name!r}: {error}") from error


def options_of(cls: type) -> type[BaseModel]:
    """A validator made from a method's keyword arguments: their names, types and defaults."""
    hints = get_type_hints(cls.__init__, include_extras=True)  # type: ignore[misc]
    fields: dict[str, Any] = {
        name: (hints.get(name, Any), parameter.default)
        for name, parameter in inspect.signature(cls).parameters.items()
        if name not in MODELS
    }
    return create_model(f"{cls.__name__}Options", __config__=ConfigDict(extra="forbid"), **fields)


def needs(name: str, model: str) -> bool:
    """Whether the method takes that model: "predictor", "prior" or "task"."""
    return model in inspect.signature(method_class(name)).parameters


def reads_batch(name: str, options: Mapping[str, Any]) -> bool:
    """Whether the method reads statistics of a batch, as far as its options tell (its predictor may have none)."""
    return bool(getattr(method_class(name), "needs_batch", options.get("batch_statistics")))


def checked_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with types checked. Raises UsageError naming the option and what exists."""
    validator = options_of(method_class(name))
    for option in options:
        if option not in validator.model_fields:
            raise unknown(f"option of {name}", option, validator.model_fields)
    try:
        return validator(**options).model_dump(include=set(options))
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"option {first['loc'][0]!r} of {name}: {first['msg']}, not {first['input']!r}") from error


def build_method(
    name: str,
    predictor: Predictor | None,
    prior: Prior | None,
    task: Task | None,
    options: Mapping[str, Any],
) -> Method:
    """A method over the models it needs. Raises UsageError for unknown names or options, DiffcernError for a
    model that is missing, and for a prior that cannot be told what the method wants to tell it."""
    cls = method_class(name)
    models = {"predictor": predictor, "prior": prior, "task": task}
    taken = {model: value for model, value in models.items() if needs(name, model)}
    for model, value in taken.items():
        if value is None:
            raise DiffcernError(f"{name} needs a {model}: give one")
    if task is not None and task.name not in getattr(cls, "tasks", ("classification",)):
        able = ", ".join(known for known, other in METHODS.items() if task.name in getattr(other, "tasks", ()))
        raise UsageError(f"{name} is not for {task.name}; these are: {able}")
    if {"prior", "task"} <= taken.keys() and prior is not None and task is not None:
        task.check(prior)
    return cls(**taken, **checked_options(name, options))
