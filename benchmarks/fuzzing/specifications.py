"""Specifications: read as what they say, or refused."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from random import Random
from typing import Any

import tomli_w

from diffcern.run.spec import SHIPPED, Spec, parse_spec, read_spec

from .damage import changed_value, damaged_bytes, encoded
from .outcomes import Case

KEYS = ("data.count", "models.prior", "shifts.severities", "entries.source.batch_size", "seed", "a.b", "", "x", "data")
VALUES = (
    "1",
    "true",
    "nan",
    '"x"',
    "[1, 2]",
    "{}",
    "x",
    "",
    "1979-05-27",
    "[" * 50,
    "1\nseed = 5",
    "'",
    "embedded:digits",
)


class Specifications:
    """Those that ship, with damaged text, odd keys and values, in other encodings, and with odd `--set`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "spec.toml"
        self.texts = [path.read_text() for path in sorted(SHIPPED.glob("*.toml"))]

    def case(self, rng: Random) -> Case:
        text = rng.choice(self.texts)
        way = rng.random()
        if way < 0.05:
            return self._of("whole", text.encode(), text, whole=True)
        if way < 0.15:
            name, data, readable = encoded(text, rng)
            return self._of(name, data, text if readable else None, whole=readable)
        if way < 0.25:
            assignment = f"{rng.choice(KEYS)}={rng.choice(VALUES)}"
            return Case(f"--set {assignment!r}", lambda: self._read(text.encode(), None, [assignment]))
        if way < 0.5:
            what, data = damaged_bytes(text.encode(), rng)
            return self._of(what, data, data.decode("utf-8", "ignore") if data.isascii() else None)
        what, content = changed_value(tomllib.loads(text), rng)
        try:
            text = tomli_w.dumps(content)
        except (TypeError, ValueError, AttributeError):  # TOML has no null, and no list as the whole
            return self._of("no TOML", b"= 1", None)
        return self._of(what, text.encode(), text)

    def _of(self, what: str, data: bytes, text: str | None, whole: bool = False) -> Case:
        return Case(what, lambda: self._read(data, text, []), whole)

    def _read(self, data: bytes, text: str | None, assignments: list[str]) -> bool:
        """Whether the specification says what the text does, and can be written and read again."""
        self.path.write_bytes(data)
        spec = read_spec(self.path, assignments)
        if parse_spec(tomllib.loads(spec.to_toml())) != spec:
            return False
        return text is None or agrees(tomllib.loads(text), spec)


def agrees(table: dict[str, Any], spec: Spec) -> bool:
    """Whether all that a table says is in the specification, as it was said."""
    for key, value in table.items():
        found = getattr(spec, key)
        if key == "entries":
            for name, entry in value.items():
                said = {part: item for part, item in entry.items() if part != "preset"}  # which is filled in
                if not all(same(item, getattr(found[name], part)) for part, item in said.items() if part != "options"):
                    return False
                options = found[name].options
                if not all(same(item, options.get(part)) for part, item in said.get("options", {}).items()):
                    return False
        elif isinstance(value, dict):
            if not all(same(item, getattr(found, part)) for part, item in value.items()):
                return False
        elif not same(value, found):
            return False
    return True


def same(said: Any, found: Any) -> bool:
    """Equality in which a truth value is no number and a list is a tuple."""
    if isinstance(said, dict) and isinstance(found, dict):
        return said.keys() == found.keys() and all(same(said[key], found[key]) for key in said)
    if isinstance(said, list | tuple) and isinstance(found, list | tuple):
        return len(said) == len(found) and all(map(same, said, found))
    if isinstance(said, bool) != isinstance(found, bool) or isinstance(said, str) != isinstance(found, str):
        return False
    if isinstance(said, float) and isinstance(found, float) and math.isnan(said):
        return math.isnan(found)
    return bool(said == found)
