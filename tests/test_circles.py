"""Imports run one way: no module reaches itself, neither while it is loaded nor later, within a function."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"
FILES = {".".join(path.relative_to(SOURCE).with_suffix("").parts): path for path in SOURCE.rglob("*.py")}
MODULES = {name.removesuffix(".__init__"): path for name, path in FILES.items()}
DOORS = ("diffcern",)  # names are imported there when they are asked for


def imported(path: Path, everywhere: bool) -> Iterator[str]:
    """What a file imports of diffcern; everywhere: within functions too. What only type checkers see is left out."""
    nodes = list(ast.parse(path.read_text()).body)
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("diffcern"):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else node.module for name in names)
        elif everywhere or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            nodes += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]


def graph(everywhere: bool) -> dict[str, set[str]]:
    """By module what it imports, and the packages that are loaded on the way."""
    found = {}
    for name, path in MODULES.items():
        needed = set(imported(path, everywhere))
        parents = {".".join(parts[:k]) for n in needed if (parts := n.split(".")) for k in range(2, len(parts))}
        mine = {parent for parent in parents if name == parent or name.startswith(f"{parent}.")}
        found[name] = {n for n in needed | (parents - mine) if n not in DOORS and n != name}
    return found


def test_no_module_imports_itself_while_it_is_loaded():
    assert len(MODULES) > 200
    list(TopologicalSorter(graph(everywhere=False)).static_order())  # CycleError names a circle


def test_nor_later():
    list(TopologicalSorter(graph(everywhere=True)).static_order())
