"""What `--json` prints and summary.json holds, as JSON schemas: rows are as `run/columns.py` has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import (
    TYPE_CHECKING,
    Any,
    NotRequired,  # comes with pydantic, which wants it of Python 3.11
)

from pydantic import ConfigDict, TypeAdapter, with_config
from typing_extensions import TypedDict

from diffcern.errors import unknown

if TYPE_CHECKING:
    import pyarrow as pa

DIALECT = "https://json-schema.org/draft/2020-12/schema"
CLOSED = ConfigDict(extra="forbid")
Schema = dict[str, Any]


@with_config(CLOSED)
class Share(TypedDict):
    """A part of what was asked that came out right, or a change of one, with its 95 % interval."""

    group: str
    value: float
    ci_low: float
    ci_high: float
    n: int


@with_config(CLOSED)
class Score(Share):
    """Of examples whose images and captions were matched."""

    score: str


@with_config(CLOSED)
class Accuracy(Share):
    """Of questions; answer: before, purified, after, or the change between them."""

    answer: str


@with_config(CLOSED)
class Fitted(TypedDict):
    """A temperature, and how well the probabilities mean something before and after."""

    images: int
    accuracy: float
    temperature: float
    calibration_error_before: float
    interval_before: tuple[float, float]
    risk_of_the_surer_half_before: float
    calibration_error_after: float
    interval_after: tuple[float, float]
    risk_of_the_surer_half_after: float
    kept: str


@with_config(CLOSED)
class Margin(TypedDict):
    """Of a family of views, in nats."""

    views: str
    images: int
    margin: float
    most: float
    kept: str


@with_config(CLOSED)
class Level(TypedDict):
    """By how much the runner-up's error is larger at these noise levels, and its 95 % interval."""

    low: float
    high: float
    gap: float | None
    ends: tuple[float, float] | None
    draws: int


@with_config(CLOSED)
class Why(TypedDict):
    """Of an image that was explained; answers: the likeliest first, with their errors."""

    id: str
    answers: list[str]
    errors: list[float]
    margin: float
    margin_standard_error: float
    sure: bool
    levels: list[Level]
    in_words: list[str]
    nfe_forward: int
    error: None


@with_config(CLOSED)
class Left(TypedDict):
    """Of what could not be read."""

    id: str
    error: str


@with_config(CLOSED)
class Cell(TypedDict):
    """An entry under a shift at a severity, or in the mean over some; see `report.summarise`."""

    entry: str
    method: str
    protocol: str
    batch_size: int
    needs_batch: bool
    dataset: str
    shift: str
    severity: int | None
    metric: NotRequired[str]
    value: NotRequired[float]
    ci_low: NotRequired[float]
    ci_high: NotRequired[float]
    n: int
    planned: int
    skipped: dict[str, str]
    complete: bool
    difference_to_source: float | None
    difference_low: float | None
    difference_high: float | None
    seconds_per_image: float | None
    nfe_forward: float | None
    nfe_backward: float | None
    peak_memory_mb: float | None


Catalogue = dict[str, dict[str, str]]
SKIPPED: Schema = {
    "description": "of what could not be read or answered",
    "type": "object",
    "properties": {"id": {"type": "string"}, "error": {"type": "string", "minLength": 1}},
    "required": ["id", "error"],
}


def schema_of(output: str) -> Schema:
    """Of what a command prints with --json, or of "summary.json". Raises UsageError for what prints none."""
    if output not in OUTPUTS:
        raise unknown("output", output, OUTPUTS)
    return {"$schema": DIALECT, **OUTPUTS[output](), "title": output}


def _typed(kind: Any) -> Callable[[], Schema]:
    return lambda: TypeAdapter(kind).json_schema()


def _adapted() -> Schema:
    from diffcern.run.columns import adapted

    return _rows(*((adapted(maps, False), adapted(maps, True)) for maps in (False, True)))


def _classified() -> Schema:
    from diffcern.run.columns import CLASSIFIED

    return _rows((CLASSIFIED, CLASSIFIED))


def _matched() -> Schema:
    from diffcern.data.pairs import TAGS
    from diffcern.run.columns import matched

    rows = _rows(*((matched(prior, ()), matched(prior, TAGS, shortlist=prior, race=prior)) for prior in (True, False)))
    return _scored("scores", Score, rows)


def _answered() -> Schema:
    from diffcern.run.columns import answered

    return _scored("accuracies", Accuracy, _rows(*((answered(both), answered(both)) for both in (False, True))))


def _scored(name: str, kind: Any, rows: Schema) -> Schema:
    scores = TypeAdapter(list[kind]).json_schema(ref_template="#/$defs/{model}")
    defined = {"$defs": found} if (found := scores.pop("$defs", None)) else {}
    properties = {name: scores, "rows": rows}
    return {
        "type": "object",
        "properties": properties,
        "required": [*properties],
        "additionalProperties": False,
    } | defined


def _rows(*kinds: tuple[pa.Schema, pa.Schema]) -> Schema:
    """Rows of one of these kinds, by the columns that they have in any case and all that they may have; and of what was
    skipped."""
    return {"type": "array", "items": {"anyOf": [*(_row(*kind) for kind in kinds), SKIPPED]}}


def _row(least: pa.Schema, most: pa.Schema) -> Schema:
    properties: Schema = {field.name: _column(field.type) for field in most}
    properties |= {"id": {"type": "string"}, "error": {"type": "null"}}
    return {"type": "object", "properties": properties, "required": least.names, "additionalProperties": False}


def _column(kind: pa.DataType) -> Schema:
    """Of a column, any of whose values may be missing."""
    import pyarrow as pa

    if pa.types.is_list(kind):
        return {"type": ["array", "null"], "items": _column(kind.value_type)}
    kinds = ((pa.types.is_string, "string"), (pa.types.is_boolean, "boolean"), (pa.types.is_integer, "integer"))
    return {"type": [next((name for holds, name in kinds if holds(kind)), "number"), "null"]}


def _examined() -> Schema:
    from diffcern.health import Health

    found: Schema = TypeAdapter(Health).json_schema()
    well = {"well": {"type": "boolean", "description": "whether the self-test passed"}}
    closed = {"additionalProperties": False, "required": [*found["required"], "well"]}
    return {**found, "properties": {**found["properties"], **well}, **closed}


OUTPUTS: dict[str, Callable[[], Schema]] = {
    "adapt": _adapted,
    "classify": _classified,
    "explain": _typed(list[Why | Left]),
    "match": _matched,
    "answer": _answered,
    "bench": _typed(list[Cell]),
    "report": _typed(list[Cell]),
    "summary.json": _typed(list[Cell]),
    "demo": _typed(list[Cell] | dict[str, list[Score] | list[Accuracy]]),
    "calibrate images": _typed(Fitted),
    "calibrate run": _typed(Fitted),
    "calibrate views": _typed(list[Margin]),
    "list": _typed(Catalogue),
    "doctor": _examined,
}
