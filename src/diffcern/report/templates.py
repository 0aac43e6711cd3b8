"""The templates of pages: everything that they are given is escaped, and what they are not given is an error."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("diffcern.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def template(name: str, **known: Any) -> Template:
    """Of this folder. known: what it may use beside what it is rendered with."""
    return _environment().get_template(name, globals=known)
