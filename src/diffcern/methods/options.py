"""The options of a method: its constructor's keyword arguments, checked before it is built."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence, Set
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from diffcern.errors import UsageError, first_line, unknown
from diffcern.solvers import ONE_SHOT

LARGEST = 2**53  # of any option, in both directions
MODELS = ("predictor", "prior", "task")  # constructor arguments that are no options


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


def defaults(cls: type) -> dict[str, Any]:
    """The constructor's default of each option, `inspect.Parameter.empty` where it has none."""
    return {name: each.default for name, each in inspect.signature(cls).parameters.items() if name not in MODELS}


def over(preset: Mapping[str, Any], given: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The options of a preset, called `what` in messages, with those that were given in their place.

    Raises UsageError for steps that the preset's solver would not take.
    """
    if preset.get("solver") == ONE_SHOT and given.get("steps", 1) != 1 and "solver" not in given:
        raise UsageError(
            f"{what} is a single step (solver {ONE_SHOT}), and steps={given['steps']} would change nothing: give a "
            "solver for them too, solver=ddpm"
        )
    return {**preset, **given}


def checked(cls: type, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a method's class, called `name` in messages, with types checked.

    Raises UsageError naming the option and what exists, also for NaN and infinity (of every option, in use or not: no
    method means anything by them) and for truth values and texts in the place of numbers.
    """
    try:
        validator = options_of(cls)
    except UsageError:
        raise
    except Exception as error:  # hints of somebody's class that name nothing
        raise UsageError(f"cannot tell the options of the method {name}: {first_line(error)}") from error
    for option in options:
        if option not in validator.model_fields:
            raise unknown(f"option of {name}", str(option), validator.model_fields)
    options = {option: _listed(value, validator.model_fields[option].annotation) for option, value in options.items()}
    try:
        values = validator(**options).model_dump(include=set(options))
    except ValidationError as error:
        first = error.errors()[0]
        option = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"option {option!r} of {name}: {first['msg']}, not {first['input']!r}") from error
    for option, value in values.items():
        if not all(-LARGEST < number < LARGEST for number in _numbers(value)):  # false for NaN
            raise UsageError(f"option {option!r} of {name}: numbers are finite and within 2^53, not {value!r}")
        if not _alike(options[option], value):
            raise UsageError(f"option {option!r} of {name} takes {value!r:.60}, not {options[option]!r}")
    return values


def _listed(value: Any, kind: Any) -> Any:
    """Words as a command line has them, light,turn, where an option takes a tuple of words."""
    return (
        tuple(word.strip() for word in value.split(","))
        if isinstance(value, str) and kind == tuple[str, ...]
        else value
    )


def _numbers(value: Any) -> list[int | float]:
    """All numbers in an option's value, which may be a sequence of them, or a table."""
    if isinstance(value, Mapping):
        return _numbers(list(value.values()))
    if isinstance(value, Sequence | Set) and not isinstance(value, str):
        return [number for item in value for number in _numbers(item)]
    return [value] if isinstance(value, int | float) else []


def _alike(given: Any, taken: Any) -> bool:
    """Whether an option was taken as what it is: truth values and texts are no numbers."""
    if isinstance(given, Sequence) and isinstance(taken, Sequence) and not isinstance(given, str):
        return all(map(_alike, given, taken))
    return all(isinstance(given, kind) == isinstance(taken, kind) for kind in (bool, str))
