"""The JSON files that describe what diffcern made: validated once, when they are read, and errors that name the key.

What they may hold is said by the types of a dataclass, with the types below. Knows nothing about models.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from diffcern.errors import DiffcernError, UsageError
from diffcern.texts import parse_json, read_text

Value = TypeVar("Value")
FORBID = ConfigDict(extra="forbid")  # for a dataclass's __pydantic_config__: no keys but its own


def _named(name: str) -> str:
    if not name.strip():
        raise ValueError("a name that is not empty")
    return name


def _different(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError(f"different names, but {next(n for n in names if names.count(n) > 1)!r} stands twice")
    return names


def one_of(*values: Any) -> AfterValidator:
    """For `Annotated`: a value that is one of these."""

    def check(value: Any) -> Any:
        if value not in values:
            raise ValueError(f"one of {', '.join(map(str, values))}")
        return value

    return AfterValidator(check)


Name = Annotated[str, AfterValidator(_named)]
Names = Annotated[tuple[Name, ...], AfterValidator(_different)]
Side = Annotated[int, Field(ge=4, le=8192)]  # pixels
Depth = Annotated[int, Field(ge=1, le=1000)]  # layers; their widths are held against the weights, see `check_shapes`
Width = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Mean = Annotated[tuple[Share, ...], Field(min_length=3, max_length=3)]  # of the channels of images in [0, 1]
Deviation = Annotated[float, Field(gt=0, le=1)]
Std = Annotated[tuple[Deviation, ...], Field(min_length=3, max_length=3)]


def read_config(path: Path, kind: type[Value] | Any, advice: str) -> Value:
    """The content of a JSON file as a value of a dataclass or another type, nothing converted.

    advice: who writes such a file. Raises DiffcernError that names the key and what was expected there.
    """
    text = read_text(path)
    try:
        parse_json(text, "it")  # says where it is no JSON, and refuses NaN
        value: Value = TypeAdapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        raise DiffcernError(f"cannot read {path}: {problem(error)}. {advice}") from error
    except DiffcernError as error:
        raise DiffcernError(f"cannot read {path}: {error}. {advice}") from error
    return value


def check_config(config: Any) -> None:
    """Raises UsageError for a value that `read_config` would refuse once it is written."""
    try:
        TypeAdapter(type(config)).validate_json(json.dumps(asdict(config)), strict=True)
    except ValidationError as error:
        raise UsageError(problem(error)) from error


def problem(error: ValidationError) -> str:
    """The first thing that a validator found, in words: the key, what was expected and what is there."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] in ("missing", "missing_argument"):
        return f"the key {where!r} is missing"
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"the key {where!r} is unknown"
    expected = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    found = repr(first["input"])
    return f"{where or 'its content'} should be {expected}, not {found if len(found) <= 60 else found[:60] + ' ...'}"
