"""Which changes are made to a module: mutmut's operators, and three of ours.

Annotations, aliases of types, imports, docstrings, and texts that people read are left as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import mutation_operators

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"
LEFT_ALONE = (cst.Annotation, cst.Import, cst.ImportFrom, cst.Decorator, cst.Assert)
TYPES = ("Literal", "Annotated", "Callable", "dict", "tuple")
PAIRS = {"min": "max", "max": "min", "amin": "amax", "amax": "amin", "any": "all", "all": "any"}


@dataclass(frozen=True)
class Mutant:
    """A module with one change. places: lines whose tests it meets, those of the first that has any."""

    path: Path
    source: str
    line: int
    before: str
    after: str
    places: tuple[range, ...]

    @property
    def place(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"

    @property
    def key(self) -> str:
        """The change, wherever its line has moved since."""
        return f"{self.path.relative_to(ROOT)}: {self.before} -> {self.after}"


def ours(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """Changes that mutmut does not make."""
    if isinstance(node, cst.Return) and node.value is not None and getattr(node.value, "value", "") != "None":
        yield node.with_changes(value=cst.Name("None"))
    if isinstance(node, cst.Raise | cst.Del | cst.AugAssign) or (
        isinstance(node, cst.Expr) and isinstance(node.value, cst.Call)
    ):
        yield cst.Pass()
    if isinstance(node, cst.Call) and isinstance(node.func, cst.Name | cst.Attribute):
        name = node.func if isinstance(node.func, cst.Name) else node.func.attr
        if name.value in PAIRS:
            yield node.with_deep_changes(name, value=PAIRS[name.value])


class Finder:
    """All mutants of a module."""

    def __init__(self, path: Path) -> None:
        self.path, wrapper = path, MetadataWrapper(cst.parse_module(path.read_text()))
        self.module, self._places = wrapper.module, wrapper.resolve(PositionProvider)
        self.found: list[tuple[cst.CSTNode, cst.CSTNode, tuple[range, ...]]] = []
        self._walk(self.module, (self._lines(self.module),))

    def _lines(self, node: cst.CSTNode) -> range:
        place: Any = self._places[node]
        return range(place.start.line, place.end.line + 1)

    def _walk(self, node: cst.CSTNode, places: tuple[range, ...]) -> None:
        if isinstance(node, LEFT_ALONE) or _is_type_or_text(node):
            return
        if isinstance(node, cst.FunctionDef):  # what its header says runs at import
            places = (self._lines(node.body), *places)
        elif isinstance(node, cst.SimpleStatementLine):
            places = (self._lines(node), *places)
        elif isinstance(node, cst.If | cst.For | cst.While | cst.With):
            places = (range(self._lines(node).start, self._lines(node.body).start), *places)
        changes = [new for kind, operator in mutation_operators if isinstance(node, kind) for new in operator(node)]
        self.found += [(node, new, places) for new in (*changes, *ours(node))]
        if not isinstance(node, cst.Raise):
            for child in node.children:
                self._walk(child, places)

    def mutant(self, number: int) -> Mutant:
        node, new, places = self.found[number]
        old, source = self.module.code, self.module.deep_replace(node, new).code  # type: ignore[arg-type]
        before, after = old.splitlines(), source.splitlines()
        line = next((i for i, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]), 0)
        return Mutant(self.path, source, line + 1, before[line].strip(), after[line].strip(), places)


def _is_type_or_text(node: cst.CSTNode) -> bool:
    """Types and their aliases, docstrings, and strings with a space, which people read."""
    if isinstance(node, cst.Assign | cst.AnnAssign) and node.value is not None:
        return _is_type_or_text(node.value)
    if isinstance(node, cst.Subscript):
        return isinstance(node.value, cst.Name) and node.value.value in TYPES
    if isinstance(node, cst.Call):
        return isinstance(node.func, cst.Name) and node.func.value == "TypeVar"
    if isinstance(node, cst.Expr):
        return isinstance(node.value, cst.SimpleString | cst.Ellipsis)
    return isinstance(node, cst.SimpleString) and " " in node.value
