"""Which files of a repository a predictor is read from."""

from __future__ import annotations

from pathlib import Path

from diffcern import hub
from diffcern.assets import asset
from diffcern.weight_files import Stored, fetch_weights, stored_weights

LIBRARY = "transformers"  # whose names timm's and our own weights have too


def fetch(name: str, *, allow_pickle: bool = False, code: bool = False) -> Path:
    """The folder that `name` stands for, see `hub.download`; with its weights, if it has any (see `weight_files`).

    allow_pickle: fetch pickled weights where there are no others; code: fetch Python files too.
    """
    folder = hub.download(name, (*hub.TEXT, *(("*.py",) if code else ())))
    fetch_weights(name, {"": LIBRARY}, "config.json", allow_pickle)
    return folder


def folder_of(name: str, *, allow_pickle: bool = False, code: bool = False) -> Path:
    """The folder of "embedded:NAME", of "hf:OWNER/NAME[@REVISION]" (see `fetch`), or the path itself, which need not
    exist. Raises UsageError as `asset`, DiffcernError as `hub.download`."""
    family, _, rest = name.partition(":")
    if family == "embedded":
        return asset(rest, "predictor")
    return fetch(rest, allow_pickle=allow_pickle, code=code) if family == "hf" else Path(name).expanduser()


def stored(folder: Path, name: str, allow_pickle: bool) -> Stored:
    """How the weights in the folder are stored. Raises DiffcernError unless they are safetensors, or pickles where
    those are allowed; name: what messages call the folder."""
    return stored_weights(name, folder, {"": LIBRARY}, allow_pickle)[""]
