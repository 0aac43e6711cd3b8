"""What commands print with --json, held against their schemas: the fixture `cli` asks, in whatever test prints it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache

from jsonschema import Draft202012Validator

from diffcern.outputs import OUTPUTS, schema_of


@cache
def validator(output: str) -> Draft202012Validator:
    return Draft202012Validator(schema_of(output))


def check_output(arguments: Sequence[str], printed: str) -> None:
    """Raises jsonschema's ValidationError for what a command line has printed and its schema does not allow."""
    if "--json" in arguments and printed:
        name = next(name for name in OUTPUTS if list(arguments[: len(name.split())]) == name.split())
        validator(name).validate(json.loads(printed))
