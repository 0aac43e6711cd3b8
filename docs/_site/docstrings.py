"""Our docstrings are prose: what they say of arguments becomes a list, code in backticks stays code."""

from __future__ import annotations

import inspect
import re
from contextlib import suppress
from typing import Any

from sphinx.application import Sphinx

CODE = re.compile(r"`([^`\n]+(?:\n[^`\n]+)?)`")
SPECIAL = re.compile(r"([\\*|_])")


def inline(text: str) -> str:
    """A paragraph as reStructuredText: backticks are code, and no other sign has a meaning."""
    parts = CODE.split(text)
    plain = [SPECIAL.sub(r"\\\1", part).replace("::", r":\:") for part in parts[::2]]
    plain[1:] = [rf"\ {part}" if part[:1].isalnum() else part for part in plain[1:]]  # code ends before a letter
    code = [f"``{' '.join(part.split())}``" for part in parts[1::2]]
    return "".join(p + c for p, c in zip(plain, [*code, ""], strict=True))


def arguments(text: str, names: set[str]) -> tuple[str, list[tuple[str, str]]]:
    """What comes before "name: meaning" or "name, name: meaning" of a paragraph, and these."""
    if not names:
        return text, []
    one = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    begins = re.compile(rf"(?:(?<=^)|(?<=[.;)] )|(?<=[.;)]\n))((?:{one})(?:(?:, | and )(?:{one}))*):\s")
    found = list(begins.finditer(text))
    if not found:
        return text, []
    ends = [match.start() for match in found[1:]] + [len(text)]
    told = [(match[1], text[match.end() : end].strip()) for match, end in zip(found, ends, strict=True)]
    return text[: found[0].start()].strip(), told


def lines_of(docstring: str, names: set[str]) -> list[str]:
    """The docstring as reStructuredText: paragraphs, lists of arguments, and indented blocks as they are."""
    lines: list[str] = []
    for block in re.split(r"\n\s*\n", inspect.cleandoc(docstring)):
        if block.startswith("    "):
            lines += ["::", "", *block.splitlines(), ""]
            continue
        before, told = arguments(block, names)
        if before:
            lines += [*inline(before).splitlines(), ""]
        for name, meaning in told:
            raises = re.search(r"\s(?=Raises [A-Z])", meaning)
            said, rest = (meaning[: raises.start()], meaning[raises.end() :]) if raises else (meaning, "")
            lines += [f"- **{name}**: " + " ".join(inline(said.rstrip(";")).split())]
            lines += ["", *inline(rest).splitlines(), ""] if rest else []
        lines += [""]
    return lines


def names_of(found: Any) -> set[str]:
    """What a docstring may explain: parameters, and the fields and attributes of a class."""
    names: set[str] = set()
    if isinstance(found, type):
        names |= {name for kind in found.__mro__ for name in (*vars(kind), *vars(kind).get("__annotations__", {}))}
    if callable(found):
        with suppress(TypeError, ValueError):  # of what has no signature
            names |= set(inspect.signature(found).parameters)
    return {name for name in names if not name.startswith("_")}


def process(app: Sphinx, what: str, name: str, found: Any, options: Any, lines: list[str]) -> None:
    lines[:] = lines_of("\n".join(lines), names_of(found))


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", process)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
