"""At the end of each method's page: its options, as published and in the preset for small models."""

from __future__ import annotations

import inspect
from typing import Any

from sphinx.application import Sphinx

from diffcern.kinds import QUESTION_ANSWERING
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
    "segmentation-and-depth": ("diffusion-tta", "canonical", "diffpure", "dda", "sda"),
    "question-answering": ("diffpure", "dda", "sda"),
}
TASKS = {"segmentation-and-depth": "segmentation", "question-answering": QUESTION_ANSWERING}  # others: classification
HEAD = """
## Options

As `diffcern list methods` prints them. The preset `paper` is the constructor's defaults; `small`, which `adapt` and
`classify` start with, sets what stands in its column{here}. `--set NAME=VALUE` overrides either.
"""


def table(method: str, task: str = "classification") -> str:
    small = preset_options(method, "small", task)
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
        task = TASKS.get(name, "classification")
        here = "" if name not in TASKS else f" for {task}; other tasks have others of their own"
        source[0] += "\n".join([HEAD.format(here=here), *(table(method, task) for method in PAGES[name])])


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", append)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
