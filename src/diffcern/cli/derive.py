"""Commands made from jobs: a job's fields are its options, and only what is given is handed on.

    @from_job(Classify)
    def classify(job: Classify, out: ..., strict: ...) -> None: ...

The function below says what is to be shown; its further parameters are options of the command line alone.
"""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import typer
from pydantic.fields import FieldInfo

from diffcern.cli.completing import NAMES, completing
from diffcern.cli.consoles import waiting
from diffcern.errors import UsageError, unknown
from diffcern.fields import spelling_of
from diffcern.jobs.base import Idle, Job, make

GIVEN = ("COMMANDLINE", "ENVIRONMENT")  # sources of a parameter's value, by name
J = TypeVar("J", bound=Job)


class Option:
    """One field of a job, or of a part of it, as a command line has it. path: the parts that lead to it."""

    def __init__(self, path: tuple[str, ...], field: Field[Any], hint: Any, default: Any) -> None:
        kind, *notes = get_args(hint)
        self.path, self.name = path, field.name
        self.spelling = spelling_of(hint)
        self.about = next(note for note in notes if isinstance(note, FieldInfo))
        self.kind = self.spelling.text or kind
        self.flags = self.spelling.flags or (f"--{self.name.replace('_', '-')}",)
        self.switch = any("/" in flag for flag in self.flags)  # --one/--other
        self.choices = get_args(kind) if get_origin(kind) is Literal and not self.switch else ()
        self.default = default

    @property
    def flag(self) -> str:
        """As messages call it."""
        return self.flags[0].split("/")[0]

    def parameter(self) -> inspect.Parameter:
        """Of a function that Typer makes a command of."""
        kind, none = _plain(bool if self.switch else str if self.choices else self.kind)
        bounds = {name: getattr(note, end) for note in self.about.metadata for name, end in _ENDS if hasattr(note, end)}
        unbounded = any(getattr(note, "allow_inf_nan", None) for note in self.about.metadata)
        how: dict[str, Any] = {"help": self.about.description, **bounds}
        if kind is float and not unbounded:
            how["callback"] = _finite
        if names := (lambda: self.choices) if self.choices else NAMES.get(self.name):
            how["autocompletion"] = completing(names)
        info: Any = typer.Argument(**how) if self.spelling.argument else typer.Option(*self.flags, **how)
        default = self.default
        if default is MISSING:
            default = inspect.Parameter.empty
        elif self.switch:
            default = default == self.spelling.values[0]
        elif self.spelling.text or default in ((), None):
            none, default = True, str(default) if self.spelling.text is str and default is not None else None
        hint: Any = Annotated[kind | None if none else kind, info]
        return inspect.Parameter(self.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)

    def value(self, given: Any) -> Any:
        """Of the field. Raises UsageError for none of its choices."""
        if self.choices and given not in self.choices:
            raise unknown(self.name.replace("_", " "), given, self.choices)
        return self.spelling.values[0 if given else 1] if self.switch else given


_ENDS = (("min", "ge"), ("max", "le"))


def _plain(kind: Any) -> tuple[Any, bool]:
    """A type that Typer knows, and whether None is one of its values."""
    if get_origin(kind) in (Union, types.UnionType):
        kinds = [part for part in get_args(kind) if part is not type(None)]
        return _plain(kinds[0])[0], len(kinds) < len(get_args(kind))
    return (list[str] if get_origin(kind) in (tuple, list) else kind), False


def options_of(kind: type[Any], start: Any = MISSING, path: tuple[str, ...] = ()) -> Iterator[Option]:
    """The options that a dataclass makes: its annotated fields, and those of its parts that are dataclasses.

    start: a value whose fields are the defaults.
    """
    hints = get_type_hints(kind, include_extras=True)
    for field in sorted(fields(kind), key=lambda field: field.name not in kind.__annotations__):  # inherited ones last
        default = getattr(start, field.name) if start is not MISSING else field.default
        if default is MISSING and field.default_factory is not MISSING:
            default = field.default_factory()
        if is_dataclass(hints[field.name]):
            yield from options_of(hints[field.name], default, (*path, field.name))
        elif get_origin(hints[field.name]) is Annotated:
            yield Option(path, field, hints[field.name], default)


def from_job(kind: type[J], **fixed: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Makes a command of a function that shows what became of a job: `show(job, **its_own_options)`.

    fixed: fields that the command decides and has no options for.
    """

    def decorate(show: Callable[..., None]) -> Callable[..., None]:
        options = [option for option in options_of(kind) if option.name not in fixed]
        own = list(inspect.signature(show, eval_str=True).parameters.values())[1:]

        def command(context: typer.Context, **values: Any) -> None:
            rest = {parameter.name: values.pop(parameter.name) for parameter in own}
            given = {name for name in values if _source(context, name) in GIVEN}
            with waiting():
                show(_made(kind, [option for option in options if option.name in given], values, fixed), **rest)

        keyword = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
        first = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        made = [option.parameter() for option in options]
        places = sum(option.spelling.argument for option in options)  # which come first
        parameters = [first, *made[:places], *keyword, *made[places:]]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        command.__doc__ = show.__doc__ or kind.__doc__
        command.__name__ = show.__name__
        return command

    return decorate


def _finite(parameter: typer.CallbackParam, value: float | None) -> float | None:
    """The value. Raises UsageError for NaN and infinity, which pass the bounds of an option."""
    if value is not None and not math.isfinite(value):
        raise UsageError(f"{parameter.opts[0]} is a finite number, not {value}")
    return value


def _source(context: typer.Context, name: str) -> str:
    source = context.get_parameter_source(name)
    return source.name if source is not None else ""


def _made(kind: type[J], given: list[Option], values: Mapping[str, Any], fixed: Mapping[str, Any]) -> J:
    """The job; its parts hold their own defaults where they are not given."""
    flags = {option.name: option.flag for option in given}
    named: dict[str, Any] = {}
    parts: dict[str, dict[str, Any]] = {}
    for option in given:
        into = parts.setdefault(option.path[0], {}) if option.path else named
        into[option.name] = option.value(values[option.name])
    try:
        return make(kind, {**named, **parts, **fixed})
    except Idle as error:
        raise Idle(error.fields, error.why, lambda name: flags.get(name, name)) from error
