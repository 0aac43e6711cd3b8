"""Jobs as functions: `classify("photos", prior="hf:...")` is a `Classify` that is carried out at once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_type_hints

from diffcern.fields import spelling_of
from diffcern.files import path_of, place_of
from diffcern.jobs.align import Align, Aligned
from diffcern.jobs.answer import Answer
from diffcern.jobs.base import Job, Silent, make
from diffcern.jobs.bench import Bench, RunResult
from diffcern.jobs.classify import Classify
from diffcern.jobs.explain import Explain
from diffcern.jobs.match import Match
from diffcern.jobs.purify import Folder, Purify
from diffcern.jobs.rows import RowsJob, Table

OWN = """

    {returns}
    out: {out}. {overwrite}events: hears of progress. The other arguments are the options of
    `diffcern {command}`. Raises UsageError for what does not exist or fit, DiffcernError for what cannot be used."""


KEPT = "where results are kept, and where a call that was interrupted goes on"
OVERWRITE = "overwrite: replace results that are there. "


def function_of(kind: type[Job], returns: str, out: str) -> Callable[..., Any]:
    """A function that makes a job of its arguments and carries it out; the field that a command takes by its place,
    this takes first. Tables can be overwritten; folders are gone on with."""
    overwrites = issubclass(kind, RowsJob | Explain)
    place: Callable[..., Any] = place_of if issubclass(kind, RowsJob | Purify) else path_of
    own = fields(kind)  # type: ignore[arg-type]
    hints = get_type_hints(kind, include_extras=True)
    first = [field.name for field in own if spelling_of(hints[field.name]).argument]

    def call(*placed: Any, out: str | Path | None = None, **given: Any) -> Any:
        handed = ("overwrite", "events") if overwrites else ("events",)
        extra = {name: given.pop(name) for name in handed if name in given}
        if len(placed) > len(first):
            raise TypeError(f"{kind.command} takes {len(first)} argument by its place, and {len(placed)} were given")
        if twice := [name for name in first[: len(placed)] if name in given]:
            raise TypeError(f"{kind.command} was given {twice[0]} twice: by its place and by its name")
        job = make(kind, {**dict(zip(first, placed, strict=False)), **given})
        return job.carry_out(None if out is None else place(out), **extra)

    parameters = []
    for field in sorted(own, key=lambda field: field.name not in first):
        where = inspect.Parameter.POSITIONAL_OR_KEYWORD if field.name in first else inspect.Parameter.KEYWORD_ONLY
        default = inspect.Parameter.empty if field.default is MISSING else field.default
        if field.default_factory is not MISSING:
            default = field.default_factory()
        parameters.append(inspect.Parameter(field.name, where, default=default, annotation=field.type))
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters += [
        inspect.Parameter("out", keyword, default=None, annotation="str | Path | None"),
        *([inspect.Parameter("overwrite", keyword, default=False, annotation="bool")] if overwrites else []),
        inspect.Parameter("events", keyword, default=Silent(), annotation="Events"),
    ]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__name__ = call.__qualname__ = kind.command
    told = OWN.format(returns=returns, out=out, overwrite=OVERWRITE * overwrites, command=kind.command)
    call.__doc__ = f"{(kind.__doc__ or '').strip()}{told}"
    return call


TABLE, FOLDER = f"{KEPT}; None where they are returned alone", f"the folder {KEPT}; it must be given"
classify = function_of(Classify, f"Returns a `{Table.__name__}`: a row for each image.", TABLE)
PAGE = "a page, FILE.html"
explain = function_of(Explain, "Returns an `Explained`: an `Explanation` of each image.", PAGE)
match = function_of(Match, f"Returns a `{Table.__name__}`: a row for each example, and Winoground's scores.", TABLE)
answer = function_of(Answer, f"Returns a `{Table.__name__}`: a row for each question, and accuracies.", TABLE)
purify = function_of(Purify, f"Returns a `{Folder.__name__}`.", FOLDER)
align = function_of(Align, f"Returns an `{Aligned.__name__}`.", FOLDER)
bench = function_of(Bench, f"Returns a `{RunResult.__name__}`.", f"the folder {KEPT}, runs/NAME where none is given")
