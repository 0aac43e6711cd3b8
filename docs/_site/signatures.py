"""Signatures as people read them: without what `Annotated` adds, and none for jobs, whose fields are listed."""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

from diffcern.jobs import Job

ANNOTATED = re.compile(r"~?(?:typing\.|types\.)?Annotated\[")
PREFIX = re.compile(r"~(?:\w+\.)+")


def plain(signature: str) -> str:
    """`Annotated[X, ...]` is X, and names are without their modules."""
    while found := ANNOTATED.search(signature):
        ends = split(signature, found.end())
        signature = signature[: found.start()] + signature[found.end() : ends[0]] + signature[ends[-1] + 1 :]
    return PREFIX.sub("", signature)


def split(text: str, start: int) -> list[int]:
    """Where the parts of a bracket end that was opened before `start`; the last is the bracket's own end."""
    depth, ends = 0, []
    for place in range(start, len(text)):
        if text[place] in "([{":
            depth += 1
        elif text[place] in ")]}":
            if not depth:
                return [*ends, place]
            depth -= 1
        elif text[place] == "," and not depth:
            ends.append(place)
    raise ValueError(f"a bracket does not end in {text}")


def process(
    app: Sphinx, what: str, name: str, found: Any, options: Any, signature: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    if isinstance(found, type) and issubclass(found, Job):
        return "", None
    return signature and plain(signature), returned and plain(returned)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-signature", process)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
