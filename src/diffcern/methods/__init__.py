"""The methods by name, and how one is built from options."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence, Set
from functools import cache
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from diffcern.errors import DiffcernError, UsageError, first_line, unknown
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
from diffcern.plugins import PATH, announced, plugin
from diffcern.predictors.base import Predictor
from diffcern.priors.base import Prior
from diffcern.tasks import Task

METHODS: dict[str, type[Method]] = {
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
LARGEST = 2**53  # of any option, in both directions
MODELS = ("predictor", "prior", "task")  # constructor arguments that are no options


def method_class(name: str) -> type[Method]:
    """The class for a name in METHODS, one that a package announces, or "my_package.my_module:MyMethod".

    Raises UsageError for a name that does not exist, a module that cannot be imported, and what is no method.
    """
    if name in METHODS:
        return METHODS[name]
    found = plugin("methods", name)
    if found is None:
        raise unknown("method", name, [*METHODS, *announced("methods"), PATH])
    if not isinstance(found, type) or not all(callable(getattr(found, part, None)) for part in ("init", "step")):
        raise UsageError(f"{name} is no method: a method is a class with init and step, see docs/extend.md")
    return found if issubclass(found, Method) else _completed(found)  # type: ignore[arg-type]


@cache
def _completed(found: type) -> type[Method]:
    """The class with what `Method` declares, where it says nothing of it."""
    return type(found.__name__, (found, Method), {"__module__": found.__module__})


def options_of(cls: type) -> type[BaseModel]:
    """A validator made from a method's keyword arguments: their names, types and defaults."""
    hints = get_type_hints(cls.__init__, include_extras=True)  # type: ignore[misc]
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    fields: dict[str, Any] = {
        name: (hints.get(name, Any), ... if parameter.default is parameter.empty else parameter.default)
        for name, parameter in inspect.signature(cls).parameters.items()
        if name not in MODELS and parameter.kind in named
    }
    return create_model(f"{cls.__name__}Options", __config__=ConfigDict(extra="forbid"), **fields)


def needs(name: str, model: str) -> bool:
    """Whether the method takes that model: "predictor", "prior" or "task"."""
    return model in inspect.signature(method_class(name)).parameters


def reads_batch(name: str, options: Mapping[str, Any]) -> bool:
    """Whether the method reads statistics of a batch, as far as its options tell (its predictor may have none)."""
    return method_class(name).reads_batch(options)


def checked_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with types checked. Raises UsageError naming the option and what exists, also for NaN and infinity
    (of every option, in use or not: no method means anything by them) and for truth values and texts in the place of
    numbers."""
    try:
        validator = options_of(method_class(name))
    except UsageError:
        raise
    except Exception as error:  # hints of somebody's class that name nothing
        raise UsageError(f"cannot tell the options of the method {name}: {first_line(error)}") from error
    for option in options:
        if option not in validator.model_fields:
            raise unknown(f"option of {name}", str(option), validator.model_fields)
    try:
        checked = validator(**options).model_dump(include=set(options))
    except ValidationError as error:
        first = error.errors()[0]
        option = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"option {option!r} of {name}: {first['msg']}, not {first['input']!r}") from error
    for option, value in checked.items():
        if not all(-LARGEST < number < LARGEST for number in _numbers(value)):  # false for NaN
            raise UsageError(f"option {option!r} of {name}: numbers are finite and within 2^53, not {value!r}")
        if not _alike(options[option], value):
            raise UsageError(f"option {option!r} of {name} takes {value!r:.60}, not {options[option]!r}")
    return checked


def _numbers(value: Any) -> list[int | float]:
    """All numbers in an option's value, which may be a sequence of them."""
    if isinstance(value, Sequence | Set) and not isinstance(value, str):
        return [number for item in value for number in _numbers(item)]
    return [value] if isinstance(value, int | float) else []


def _alike(given: Any, taken: Any) -> bool:
    """Whether an option was taken as what it is: truth values and texts are no numbers."""
    if isinstance(given, Sequence) and isinstance(taken, Sequence) and not isinstance(given, str):
        return all(map(_alike, given, taken))
    return all(isinstance(given, kind) == isinstance(taken, kind) for kind in (bool, str))


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
    if task is not None and task.name not in cls.tasks:
        able = ", ".join(known for known, other in METHODS.items() if task.name in other.tasks)
        raise UsageError(f"{name} is not for {task.name}; these are: {able}")
    if {"prior", "task"} <= taken.keys() and prior is not None and task is not None:
        task.check(prior)
    return cls(**taken, **checked_options(name, options))
