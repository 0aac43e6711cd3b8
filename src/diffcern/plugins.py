"""What others bring: methods, priors, predictors and data sets of their own packages.

By a dotted path, "my_package.my_module:MyPrior", or by a name that an installed package announces:

    [project.entry-points."diffcern.priors"]
    my-prior = "my_package.my_module:MyPrior"

docs/extend.md has an example of each. Knows nothing about models.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from diffcern.errors import UsageError, first_line

Group = Literal["methods", "priors", "predictors", "datasets"]
DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
PATH = "my_package.my_module:NAME (importable: PYTHONPATH)"  # in messages


def announced(group: Group) -> dict[str, EntryPoint]:
    """What installed packages bring, by name."""
    return {point.name: point for point in entry_points(group=f"diffcern.{group}")}


def plugin(group: Group, name: str) -> Any | None:
    """The object that an announced name or a dotted path leads to; None where `name` is neither, and for a module that
    is not there.

    Raises UsageError for what cannot be imported.
    """
    point = announced(group).get(name)
    if point is None and not DOTTED.fullmatch(name):
        return None
    module, _, attribute = (point.value if point else name).partition(":")
    try:
        found = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except ModuleNotFoundError as error:
        if error.name == module and not point:  # "embeded:digits" may be a misspelt form of name
            return None
        raise UsageError(f"cannot import {name!r}, one of {group}: {first_line(error)}") from error
    except Exception as error:  # somebody's module runs when it is imported
        raise UsageError(f"cannot import {name!r}, one of {group}: {first_line(error)}") from error
    return found


def made(group: Group, name: str, kind: type, call: Callable[[Any], Any] = lambda found: found()) -> Any | None:
    """What the plugin of that name makes: `call(it)`, without arguments by default; None where there is none.

    Raises UsageError for one that cannot be called so, fails, or makes something that is no `kind`.
    """
    found = plugin(group, name)
    if found is None:
        return None
    if not callable(found):
        raise UsageError(f"{name} cannot be called: {group} are classes or functions, see docs/extend.md")
    try:
        result = call(found)
    except Exception as error:  # whatever it raises
        raise UsageError(
            f"{name} could not be made: {first_line(error)} (docs/extend.md says how it is called)"
        ) from error
    if not isinstance(result, kind):
        raise UsageError(f"{name} makes a {type(result).__name__}, not a {kind.__name__}: see docs/extend.md")
    return result
