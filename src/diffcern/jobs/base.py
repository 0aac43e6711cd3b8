"""What a piece of work is, whoever asks for it: a command line, a web page, another program.

A job is a frozen value: everything that decides what is done, in plain types. Names of models and data become models
and data when it is carried out, and where it was interrupted the same job goes on with what is there.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from diffcern.configs import problem
from diffcern.errors import UsageError, unknown
from diffcern.watching import Report, unheard

Row = dict[str, Any]
CHECKED = ConfigDict(extra="forbid", defer_build=True)  # of a job's dataclass


class Events(Protocol):
    """Who hears of a job's progress."""

    def rows(
        self, what: str, total: int, done: int = 0, evaluations: int = 0
    ) -> AbstractContextManager[Callable[[Row], None]]:
        """While this lasts, rows come: call what it gives with each. done: of the total, before the first comes.
        evaluations: of the denoiser for one of them, 0 where that is not known."""
        ...

    def stages(self) -> AbstractContextManager[Report]:
        """While this lasts, work goes on that is counted otherwise: call what it gives now and then."""
        ...

    def say(self, text: str) -> None:
        """Something that a person should know."""
        ...


class Silent:
    """Nobody hears."""

    @contextmanager
    def rows(self, what: str, total: int, done: int = 0, evaluations: int = 0) -> Iterator[Callable[[Row], None]]:
        yield lambda row: None

    @contextmanager
    def stages(self) -> Iterator[Report]:
        yield unheard

    def say(self, text: str) -> None:
        pass


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, and in words what of the work is kept."""


class Job(ABC):
    """A subclass is a frozen dataclass of pydantic whose fields are types as in `fields.py`."""

    command: ClassVar[str]

    def idle(self) -> tuple[frozenset[str], str]:
        """Fields that would change nothing beside the others, and why; giving one is a mistake."""
        return frozenset(), ""

    @abstractmethod
    def carry_out(self, out: Path | None, *, overwrite: bool = False, events: Events = Silent()) -> Any:
        """Does what is left of it; where it was done or begun before, goes on with what `out` holds.

        out: a file or folder for results. overwrite: replace results that are there. Raises UsageError for what does
        not exist or fit, DiffcernError for what cannot be used and for an `out` that holds the results of other work,
        both before anything is written; Interrupted at Ctrl-C.
        """


Kind = TypeVar("Kind", bound=Job)


def make(kind: type[Kind], given: Mapping[str, Any]) -> Kind:
    """A job from some of its fields, the others at their defaults.

    Raises UsageError for names and values that it does not have, and for fields that would change nothing.
    """
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for name in given:
        if name not in known:
            raise unknown(f"field of {kind.command}", name, known)
    try:
        job = kind(**{name: _merged(kind, name, value) for name, value in given.items()})
    except ValidationError as error:
        raise UsageError(f"{kind.command}: {problem(error)}") from error
    names, why = job.idle()
    parts = {field.name for field in fields(kind) if is_dataclass(field.default)}  # type: ignore[arg-type]
    leaves = [leaf for name, value in given.items() for leaf in (value if name in parts else [name])]
    if refused := [name for name in leaves if name in names]:
        raise Idle(refused, why)
    return job


def _merged(kind: type[Job], name: str, value: Any) -> Any:
    """Some fields of a part of a job, over the defaults of that part."""
    default = next(field.default for field in fields(kind) if field.name == name)  # type: ignore[arg-type]
    if not (isinstance(value, Mapping) and is_dataclass(default) and not isinstance(default, type)):
        return value
    return {**{field.name: getattr(default, field.name) for field in fields(default)}, **value}


class Idle(UsageError):
    """fields: given, and without any effect; why: what the others make of them."""

    def __init__(self, fields: list[str], why: str, spelt: Callable[[str], str] = str) -> None:
        super().__init__(f"{', '.join(map(spelt, fields))}: {why}")
        self.fields, self.why = fields, why


def schema(kind: type[Job]) -> dict[str, Any]:
    """The JSON schema of a job's fields: types, bounds, defaults and descriptions, as a web form needs them."""
    found: dict[str, Any] = TypeAdapter(kind).json_schema()
    return _finite(found)


def _finite(value: Any) -> Any:
    """Without the numbers that JSON has no form for: a default that is infinite is none."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items() if not _infinite(item)}
    return [_finite(item) for item in value] if isinstance(value, list) else value


def _infinite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


@contextmanager
def keeping(kept: Callable[[], str]) -> Iterator[None]:
    """Ctrl-C while this lasts raises Interrupted with what `kept` says then."""
    try:
        yield
    except Interrupted:
        raise
    except KeyboardInterrupt:
        raise Interrupted(kept()) from None
