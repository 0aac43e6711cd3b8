"""May work go on with what is there? It may where nothing has changed since; what has, is named one by one.

Knows nothing about models and files: settings in, sentences out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

LONGEST = 60  # characters of a value in a message
SHOWN = 6  # changes in a message


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two settings, by the dotted names of nested ones: `options.steps was 150, is 5`.

    Values are compared as JSON keeps them: a tuple is a list, a path is its text, and what is not there is null.
    """
    old, new = flat(before), flat(now)
    return [_change(key, old, new) for key in sorted({*old, *new}) if old.get(key) != new.get(key)]


def listed(changes: list[str]) -> str:
    """The first changes, for a message."""
    more = len(changes) - SHOWN
    return ", ".join(changes[:SHOWN]) + (f", and {more} more" if more > 0 else "")


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings by their dotted names, as JSON keeps them."""
    found: dict[str, Any] = {}
    for key, value in json.loads(json.dumps(settings, default=str)).items():
        if isinstance(value, dict) and value:
            found |= {f"{key}.{name}": item for name, item in flat(value).items()}
        else:
            found[key] = value
    return found


def _change(key: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    if key not in old:
        return f"{key} is new: {_short(new[key])}"
    if key not in new:
        return f"{key} was {_short(old[key])}, is gone"
    return f"{key} was {_short(old[key])}, is {_short(new[key])}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."
