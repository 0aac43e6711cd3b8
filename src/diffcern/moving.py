"""The networks and tensors that a value holds, wherever they are in it: found, and brought to a device."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

Change = Callable[[Tensor], Tensor]


def networks_in(value: Any) -> list[nn.Module]:
    """The modules that a value holds and that are in no other of them, in order, each once."""
    found = list(dict.fromkeys(_modules(value, set())))
    inner = {id(part) for module in found for part in module.modules() if part is not module}
    return [module for module in found if id(module) not in inner]


def moved(value: Any, change: Change) -> Any:
    """The value with its tensors changed: modules and other objects in place, values (states, conditions) as new ones.

    Of other libraries' objects nothing is looked into.
    """
    return _moved(value, change, set())


def _modules(value: Any, seen: set[int]) -> Iterator[nn.Module]:
    if isinstance(value, nn.Module):
        yield value
    elif id(value) not in seen:
        seen.add(id(value))
        for part in _parts(value):
            yield from _modules(part, seen)


def _parts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list | tuple):
        return list(value)
    return list(vars(value).values()) if _looked_into(value) else []


def _looked_into(value: Any) -> bool:
    """Objects with attributes of their own, and no classes, functions or modules of Python."""
    foreign = type(value).__module__.partition(".")[0] in ("builtins", "torch", "types", "diffusers", "transformers")
    return hasattr(value, "__dict__") and not isinstance(value, type) and not foreign


def _moved(value: Any, change: Change, seen: set[int]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, nn.Module):
        if id(value) not in seen:
            seen.add(id(value))
            value._apply(change)
        return value
    if type(value) is dict:
        return {name: _moved(part, change, seen) for name, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_moved(part, change, seen) for part in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
        return dataclasses.replace(value, **{name: _moved(part, change, seen) for name, part in fields.items()})
    if id(value) not in seen and _looked_into(value):
        seen.add(id(value))
        for name, part in list(vars(value).items()):
            vars(value)[name] = _moved(part, change, seen)
    return value
