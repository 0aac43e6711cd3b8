"""Which files of a repository a predictor is read from."""

from __future__ import annotations

from pathlib import Path

from diffcern import hub
from diffcern.assets import asset

SAFE, PICKLED = ("model*.safetensors",), ("pytorch_model*.bin",)


def fetch(name: str, *, allow_pickle: bool = False, code: bool = False) -> Path:
    """The folder that `name` stands for, see `hub.download`.

    allow_pickle: fetch pickled weights where there are no others; code: fetch Python files too.
    """
    folder = hub.download(name, (*hub.TEXT, *SAFE, *(("*.py",) if code else ())))
    return hub.download(name, (*hub.TEXT, *PICKLED)) if allow_pickle and not hub.holds(folder, SAFE) else folder


def folder_of(name: str, *, allow_pickle: bool = False, code: bool = False) -> Path:
    """The folder of "embedded:NAME", of "hf:OWNER/NAME[@REVISION]" (see `fetch`), or the path itself, which need not
    exist. Raises UsageError as `asset`, DiffcernError as `hub.download`."""
    family, _, rest = name.partition(":")
    if family == "embedded":
        return asset(rest, "predictor")
    return fetch(rest, allow_pickle=allow_pickle, code=code) if family == "hf" else Path(name).expanduser()


def refuse_pickles(folder: Path, name: str, allow_pickle: bool) -> None:
    """Raises DiffcernError unless the folder holds safetensors weights, or pickled ones where those are allowed."""
    hub.check_weights(folder, name, SAFE, PICKLED, allow_pickle)
