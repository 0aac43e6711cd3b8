"""Libraries that come with an extra: whoever needs one that is not installed is told which extra brings it."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

from diffcern.errors import UsageError

EXTRAS = {"cv2": "corruptions", "datasets": "hub"}  # by module


def optional(module: str) -> Any:
    """The module, or what takes its place where it is not installed: any use of that raises UsageError."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        return _Absent(module)


class _Absent(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        extra = EXTRAS[self.__name__]
        raise UsageError(
            f"this needs {self.__name__}, which is not installed: python -m pip install 'diffcern[{extra}]'"
        )
