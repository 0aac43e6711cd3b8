"""What people give as text, as values: settings, labels, names, sizes."""

from __future__ import annotations

import contextlib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffcern.errors import DiffcernError, UsageError
from diffcern.texts import read_json


def parse_set(pairs: Sequence[str]) -> dict[str, Any]:
    """ "name=value" options as a dictionary, the value in TOML, a bare word a string. Raises UsageError."""
    table: dict[str, Any] = {}
    for pair in pairs:
        override(table, pair)
    return table


def override(table: dict[str, Any], assignment: str) -> None:
    """Sets one value of a nested table: "a.b=value", the value in TOML, a bare word a string. Raises UsageError."""
    key, equals, text = assignment.partition("=")
    if not equals or not key:
        raise UsageError(f"--set takes a.b=value, not {assignment!r}")
    try:
        parsed = tomllib.loads(f"value = {text}")
        value = parsed["value"] if parsed.keys() == {"value"} else text
    except (tomllib.TOMLDecodeError, RecursionError):
        value = text
    *parents, last = key.strip().split(".")
    if not all((*parents, last)):
        raise UsageError(f"--set takes a.b=value, not {assignment!r}")
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise UsageError(f"--set {assignment!r}: {parent} is not a table: leave one of the two out")
    table[last] = value


def parse_labels(text: str) -> list[str] | dict[str, list[str]] | None:
    """Labels from "cat,dog", or from a file (see `label_files.read_labels`).

    None for no text. Raises UsageError for a file that is not there, as `read_labels`, and for a single label.
    """
    labels = _labels(text)
    if text and len(labels) < 2:
        raise UsageError(f"--labels {text} names {len(labels)} label: give two or more to tell apart, as cat,dog")
    return labels or None


def _labels(text: str) -> list[str] | dict[str, list[str]]:
    from diffcern.label_files import SUFFIXES, read_labels  # reads what models call classes, and so imports torch

    with contextlib.suppress(OSError):  # a list of labels too long to be a path
        if text and Path(text).expanduser().is_file():
            return read_labels(Path(text).expanduser())
    if text.lower().endswith(SUFFIXES) and "," not in text:
        raise UsageError(f"--labels: there is no file {text}: check the path, or give names, as cat,dog")
    return [label.strip() for label in text.split(",") if label.strip()]


def parse_class_map(path: Path | None) -> dict[str, str] | None:
    """A JSON object from names to names; None for no path. Raises UsageError for anything else."""
    if path is None:
        return None
    if not path.is_file():
        raise UsageError(f"--class-map: there is no file {path}: check the path")
    try:
        content = read_json(path, twice=False)
    except DiffcernError as error:
        raise UsageError(str(error)) from error
    names = [*content, *content.values()] if isinstance(content, dict) else [None]
    if not all(isinstance(name, str) and name.strip() for name in names):
        raise UsageError(f'{path} must be an object from names to names, as {{"tabby cat": "tabby"}}')
    return content


def names_of(text: str) -> list[str] | None:
    """Comma-separated names; None where there are none. Raises UsageError for an empty one, and one given twice."""
    if not text:
        return None
    names = [name.strip() for name in text.split(",")]
    if "" in names or len(set(names)) < len(names):
        raise UsageError(f"--class-names are different names, as cat,dog, not {text!r}")
    return names


def parse_size(text: str) -> int | tuple[int, int]:
    """Parses "32" or "96x128", height first. Raises UsageError for other texts and for sides below 8."""
    sides = text.split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) >= 8 for side in sides):
        raise UsageError(f"--image-size is a side of at least 8 pixels, or HEIGHTxWIDTH, not {text!r}")
    return int(sides[0]) if len(sides) == 1 else (int(sides[0]), int(sides[1]))
