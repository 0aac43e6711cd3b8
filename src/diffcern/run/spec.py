"""What a bench is: a TOML file, read into frozen, validated values. Nothing below `cli` and `run` sees one."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tomli_w
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from diffcern.claims import changed, listed
from diffcern.configs import Name
from diffcern.data.corruptions import COMMON, EXTRA
from diffcern.data.scenes import Scenes
from diffcern.data.shifts import SHIFTS
from diffcern.errors import DiffcernError, UsageError, unknown
from diffcern.given import override
from diffcern.kinds import KINDS, known
from diffcern.methods import checked_options, reads_batch
from diffcern.methods.presets import over_preset
from diffcern.run.protocols import PROTOCOLS, Protocol
from diffcern.texts import read_toml

Value = TypeVar("Value")
STRICT = ConfigDict(extra="forbid")
SHIPPED = Path(__file__).parents[1] / "specs"
Whole = Annotated[int, Field(strict=True)]  # not true, "5" or 5.0
Truth = Annotated[bool, Field(strict=True)]
GROUPS: dict[str, tuple[str, ...]] = {"common": COMMON, "extra": EXTRA, "small": tuple(SHIFTS)}


def _names_a_folder(name: str) -> str:
    if not name.isprintable() or name in (".", "..") or name.startswith("/"):
        raise ValueError("a name that a folder can have")
    return name


@dataclass(frozen=True, config=STRICT)
class Data:
    """Which images: a data set by name, and how many of them (class-stratified, seeded; None: all).

    skip: leave out the images that a bench with this count takes, so that options can be chosen on others.
    class_names: of what the task tells apart, images or pixels, where the data set itself names none.
    """

    dataset: str
    count: Whole | None = None
    skip: Whole = 0
    class_names: tuple[Name, ...] | None = None


@dataclass(frozen=True, config=STRICT)
class Models:
    """The models by name, for one task; either may be left out where no method needs it.

    dtype: the precision of the prior's network; the predictor, the noise schedule and all reductions stay in fp32.
    "auto" is bfloat16 on CUDA and float32 elsewhere. compile: what repeats in the prior's network, with torch.compile.
    labels: what to tell apart (default: the data set's classes, else the predictor's), or a table of the sentences that
    stand for each, for models that read text. templates: the sentences around every label. class_map: the predictor's
    names for classes that the data set or the prior call otherwise. allow_pickle, trust_remote_code: see
    `load_predictor`.
    """

    predictor: str | None = None
    prior: str | None = None
    task: Annotated[str, AfterValidator(known)] = "classification"
    labels: tuple[Name, ...] | dict[Name, tuple[Name, ...]] | None = None
    templates: tuple[Name, ...] | None = None
    class_map: dict[Name, Name] | None = None
    allow_pickle: Truth = False
    trust_remote_code: Truth = False
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    compile: Truth = False


@dataclass(frozen=True, config=STRICT)
class Shifts:
    """Which shifts at which severities; a group name (common, extra, small) stands for its members.

    whole: corrupt photos at their own size, not resized and cropped first, as ImageNet-C's were. Maps always are.
    """

    names: tuple[str, ...] = ("clean",)
    severities: tuple[Whole, ...] = (5,)
    whole: Truth = False

    @property
    def cells(self) -> list[tuple[str, int]]:
        """(shift, severity) pairs in order; "clean" once, at severity 0."""
        cells = []
        members = [member for name in self.names for member in GROUPS.get(name, (name,))]
        for name in dict.fromkeys(members):
            cells += [(name, 0)] if name == "clean" else [(name, severity) for severity in self.severities]
        return cells


@dataclass(frozen=True, config=STRICT)
class Entry:
    """One row of the table: a method with options, and how it meets the images.

    preset: where options that are not given come from (`methods/presets.py`). protocol, concentration: see
    `run/protocols.py`.
    """

    method: str
    preset: str = "paper"
    protocol: Protocol = "episodic"
    batch_size: Whole = Field(default=1, ge=1)
    concentration: float = Field(default=0.1, gt=0, allow_inf_nan=False)
    description: str = ""
    options: dict[str, Any] = field(default_factory=dict)


SECTIONS = {"data": Data, "models": Models, "shifts": Shifts, "entries": Entry}


@dataclass(frozen=True, config=STRICT)
class Spec:
    """A whole bench."""

    name: Annotated[Name, AfterValidator(_names_a_folder)]
    data: Data
    models: Models
    entries: dict[str, Entry]
    shifts: Shifts = field(default_factory=Shifts)
    seed: Whole = 0

    def to_toml(self) -> str:
        """The resolved specification, as written into the run folder."""
        return tomli_w.dumps(_without_none(asdict(self)))


def read_spec(source: str | Path, overrides: Sequence[str] = ()) -> Spec:
    """Reads a specification: a path, or the name of one that ships ("digits" or "specs/digits.toml").

    overrides: "a.b=value" with the value in TOML (a bare word is a string). Raises UsageError that says what is
    wrong and where: nothing is run on a specification with a typing error.
    """
    path = Path(source)
    if not path.is_file() and path.parent in (Path(), Path("specs")):
        path = SHIPPED / f"{path.stem}.toml"
    if not path.is_file():
        shipped = [known.stem for known in SHIPPED.glob("*.toml")]
        raise UsageError(f"no such file: {source}; {unknown('specification', str(source), shipped)}")
    try:
        table = read_toml(path)
    except DiffcernError as error:
        raise UsageError(str(error)) from error
    changed = copy.deepcopy(table)
    for assignment in overrides:
        override(changed, assignment)
    try:
        return parse_spec(changed, str(path))
    except UsageError as error:
        try:
            parse_spec(table, str(path))
        except UsageError:
            raise error from None
        given = " ".join(f"--set {assignment}" for assignment in overrides)  # the file alone is right
        raise UsageError(str(error).replace(str(path), given, 1)) from None


def read_world(path: Path) -> Spec:
    """What a finished run met, its data, shifts, models and seed, without entries: another version of diffcern may have
    written it, whose methods and options need not be known here.

    Raises UsageError, and DiffcernError for a file that is not TOML.
    """
    return _validated(Spec, {**read_toml(path), "entries": {}}, str(path))


def parse_spec(table: Mapping[str, Any], source: str = "specification") -> Spec:
    """Checks every name and option of a specification; source: what messages call it. Raises UsageError."""
    spec = _validated(Spec, table, source)
    if not spec.entries:
        raise UsageError('the specification has no entries: add a table [entries.source] with method = "source"')
    entries = {name: _with_preset(entry, spec.models.task) for name, entry in spec.entries.items()}
    spec = dataclasses.replace(spec, entries=entries)
    for name, entry in entries.items():
        if entry.protocol == "episodic" and entry.batch_size > 1 and not _batches(entry.method, entry.options):
            raise UsageError(
                f"entry {name!r}: {entry.method} answers single images when episodic; set batch_size = 1, or a "
                f"protocol that carries its state: {', '.join(PROTOCOLS[1:])}"
            )
        if entry.protocol == "correlated" and KINDS[spec.models.task].dense:
            raise UsageError(
                f"entry {name!r}: correlated goes by the classes of images: not for {spec.models.task}, "
                "which takes another protocol"
            )
        if not name.replace("-", "").replace("_", "").replace("+", "").isalnum():
            raise UsageError(f"entry name {name!r}: use letters, digits, '-', '_' and '+' (it names files)")
    known = ["clean", *COMMON, *EXTRA, *SHIFTS, *Scenes.renditions, *GROUPS]
    for name in spec.shifts.names:
        if name not in known:
            raise unknown("shift", name, known)
    for severity in spec.shifts.severities:
        if severity not in range(1, 6):
            raise UsageError(f"severities are 1 to 5, not {severity}")
    return spec


def parse_models(table: Mapping[str, Any]) -> Models:
    """The models that a command line names. Raises UsageError."""
    return _validated(Models, table, "models")


def _validated(kind: type[Value], table: Mapping[str, Any], what: str) -> Value:
    try:
        return TypeAdapter(kind).validate_python(dict(table))
    except ValidationError as error:
        problems = error.errors()  # a name that does not exist first: what is missing may be what was meant
        first = min(problems, key=lambda problem: problem["type"] != "unexpected_keyword_argument")
        where = ".".join(_key(part) for part in first["loc"])
        if first["type"] == "unexpected_keyword_argument":
            *section, name = map(str, first["loc"])  # a key in quotes may hold a dot
            known: Any = SECTIONS[section[0]] if section else kind
            form = "table" if isinstance(first["input"], dict) else "key"
            message = unknown(form, name, [field.name for field in dataclasses.fields(known)])
            place = ".".join(map(_key, section))
            raise UsageError(f"{what}{f', [{place}]' if place else ''}: {message}") from error
        given = "" if first["type"] == "missing" else f", not {first['input']!r:.60}"
        raise UsageError(f"{what}, at {where or 'the top'}: {first['msg']}{given}") from error


def _key(part: str | int) -> str:
    """As TOML writes it: in quotes where it is no bare key."""
    return str(part) if re.fullmatch(r"[A-Za-z0-9_-]+", str(part)) else f'"{part}"'


def _with_preset(entry: Entry, task: str) -> Entry:
    """The entry with its preset's options filled in, so that a run folder says what was run."""
    options = over_preset(entry.method, entry.preset, entry.options, task)
    checked_options(entry.method, options)
    return dataclasses.replace(entry, preset="paper", options=options)


def _batches(method: str, options: Mapping[str, Any]) -> bool:
    return method == "source" or reads_batch(method, options)


def _without_none(value: Any) -> Any:
    """TOML has no null: leaves such keys out."""
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return list(value) if isinstance(value, tuple) else value


def check_same(spec: Spec, folder: Path) -> None:
    """Raises DiffcernError when the folder holds the records of another specification."""
    existing = folder / "spec.toml"
    if not existing.is_file() or existing.read_bytes() == spec.to_toml().encode():
        return
    try:
        before = read_toml(existing)
    except DiffcernError as error:
        raise DiffcernError(
            f"{error}: {folder} does not say what was run; restore the file, give another --out, or delete the folder"
        ) from error
    with contextlib.suppress(UsageError):
        whole = read_spec(existing).to_toml()  # an older version wrote fewer defaults
        if whole == spec.to_toml():
            return
        before = tomllib.loads(whole)
    changes = listed(changed(before, tomllib.loads(spec.to_toml()))) or "in another order"
    raise DiffcernError(
        f"{folder} holds a run of another specification ({changes}): give another --out, or run "
        f"`diffcern bench {existing} --out {folder}` to continue that one"
    )
