"""Options that several commands share."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from diffcern.errors import DiffcernError, UsageError, unknown

if TYPE_CHECKING:
    from diffcern.resizing import View

DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps")]
SeedOption = Annotated[int, typer.Option("--seed", help="every random number is keyed by it and the image")]
DtypeOption = Annotated[
    str, typer.Option("--dtype", help="precision of the prior's network: auto, float32, bfloat16 or float16")
]
CompileOption = Annotated[bool, typer.Option("--compile", help="compile the prior's network (torch.compile)")]
PickleOption = Annotated[bool, typer.Option("--allow-pickle", help="read weights that exist as pickles only")]
TrustOption = Annotated[bool, typer.Option("--trust-remote-code", help="run code that a repository brings along")]
LabelsOption = Annotated[
    str,
    typer.Option(
        "--labels", help="what to tell apart: a,b or a file: one a line, JSON, or a CSV with columns prompt, label"
    ),
]
ClassMapOption = Annotated[
    Path | None, typer.Option("--class-map", help="JSON object: the prior's or data's name of a class -> yours")
]
PromptOption = Annotated[
    list[str] | None, typer.Option("--prompt", help="sentence around a label, for models that read text; repeatable")
]
GIVEN = ("COMMANDLINE", "ENVIRONMENT")  # sources of a parameter's value, by name
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
StrictOption = Annotated[bool, typer.Option("--strict", help="exit with 1 when an image had to be skipped")]


def finite(parameter: typer.CallbackParam, value: float | None) -> float | None:
    """The value of a float option; for the `callback` of one. Raises UsageError for NaN and infinity, which pass the
    bounds of an option."""
    if value is not None and not math.isfinite(value):
        raise UsageError(f"{parameter.opts[0]} is a finite number, not {value}")
    return value


ViewOption = Annotated[
    str, typer.Option("--view", help="what the prior is shown: the centre square of an image, or the whole, squeezed")
]


def parse_view(text: str) -> View:
    """Raises UsageError for another view than there are."""
    from diffcern.resizing import View

    if text not in get_args(View):
        raise unknown("view", text, get_args(View))
    return cast("View", text)


def refuse_given(context: typer.Context, names: Iterable[str], why: str) -> None:
    """Raises UsageError where one of the command's parameters `names` was given, and not left at its default: it would
    change nothing. why: what the message goes on with."""
    sources = {name: context.get_parameter_source(name) for name in names}
    given = [name for name, source in sources.items() if source is not None and source.name in GIVEN]
    if given:
        flags = {parameter.name: parameter.opts[0] for parameter in context.command.params}
        raise UsageError(f"{', '.join(flags[name] for name in given)}: {why}")


def parse_labels(text: str) -> list[str] | dict[str, list[str]] | None:
    """Labels from "cat,dog", or from a file (see `label_files.read_labels`).

    None for no text. Raises UsageError for a file that is not there, as `read_labels`, and for a single label.
    """
    labels = _labels(text)
    if text and len(labels) < 2:
        raise UsageError(f"--labels {text} names {len(labels)} label: give two or more to tell apart, as cat,dog")
    return labels or None


def _labels(text: str) -> list[str] | dict[str, list[str]]:
    from diffcern.label_files import SUFFIXES, read_labels

    with contextlib.suppress(OSError):  # a list of labels too long to be a path
        if text and Path(text).expanduser().is_file():
            return read_labels(Path(text).expanduser())
    if text.lower().endswith(SUFFIXES) and "," not in text:
        raise UsageError(f"--labels: there is no file {text}")
    return [label.strip() for label in text.split(",") if label.strip()]


def parse_class_map(path: Path | None) -> dict[str, str] | None:
    """A JSON object from names to names; None for no path. Raises UsageError for anything else."""
    from diffcern.texts import read_json

    if path is None:
        return None
    if not path.is_file():
        raise UsageError(f"--class-map: there is no file {path}")
    try:
        content = read_json(path, twice=False)
    except DiffcernError as error:
        raise UsageError(str(error)) from error
    names = [*content, *content.values()] if isinstance(content, dict) else [None]
    if not all(isinstance(name, str) and name.strip() for name in names):
        raise UsageError(f'{path} must be an object from names to names, as {{"tabby cat": "tabby"}}')
    return content


def parse_set(pairs: list[str]) -> dict[str, object]:
    """ "name=value" options as a dictionary, the value in TOML, a bare word a string. Raises UsageError."""
    from diffcern.run.spec import override

    table: dict[str, object] = {}
    for pair in pairs:
        override(table, pair)
    return table
