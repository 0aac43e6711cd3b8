"""Libraries that come with an extra: whoever needs one that is not installed is told which extra brings it."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from diffcern.errors import UsageError

EXTRAS = {"cma": "foa", "cv2": "corruptions", "datasets": "hub", "nicegui": "app"}  # by module


def optional(module: str) -> Any:
    """The module, or what takes its place where it is not installed: any use of that raises UsageError."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        return _Absent(module)


def needs(module: str) -> None:
    """Raises UsageError where the module is not installed."""
    if find_spec(module) is None:
        raise missing(module)


def missing(module: str) -> UsageError:
    return UsageError(
        f"this needs {module}, which is not installed: python -m pip install 'diffcern[{EXTRAS[module]}]'"
    )


class _Absent(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise missing(self.__name__)
