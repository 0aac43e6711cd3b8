"""At the end of each method's page: its options, as published and in the preset for small models."""

from __future__ import annotations

import inspect
from typing import Any

from sphinx.application import Sphinx

from diffcern.methods import METHODS
from diffcern.methods.options import defaults
from diffcern.methods.presets import preset_options

PAGES = {  # of docs/methods
    "baselines": ("bn-adapt", "tent", "memo", "ttt-mae", "tpt", "random-views"),
    "rivals": ("eta", "eata", "sar", "deyo", "roid", "cotta", "foa"),
    "diffusion-tta": ("diffusion-tta",),
    "diffusion-classifier": ("diffusion-classifier",),
    "dusa": ("dusa",),
    "prototypes": ("prototypes",),
    "canonical-views": ("canonical",),
    "purification": ("diffpure", "dda", "gda", "sda", "sda-tta"),
}
HEAD = """
## Options

As `diffcern list methods` prints them. The preset `paper` is the constructor's defaults; `small`, which `adapt` and
`classify` start with, sets what stands in its column. `--set NAME=VALUE` overrides either.
"""


def table(method: str) -> str:
    small = preset_options(method, "small")
    rows = [
        f"| `{name}` | {shown(value)} | {shown(small[name]) if name in small else ''} |"
        for name, value in defaults(METHODS[method]).items()
    ]
    return "\n".join([f"### `{method}`\n", "| option | `paper` | `small` |", "|---|---|---|", *rows, ""])


def shown(value: Any) -> str:
    if value is inspect.Parameter.empty:
        return "must be given"
    return f"`{value!r}`"


def append(app: Sphinx, page: str, source: list[str]) -> None:
    folder, _, name = page.rpartition("/")
    if folder == "methods" and name in PAGES:
        source[0] += "\n".join([HEAD, *map(table, PAGES[name])])


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", append)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
