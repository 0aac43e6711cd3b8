"""Model repositories as local folders: fetched from the Hugging Face hub once, then read from its cache.

Knows nothing about models; predictors and priors say which files they need.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from diffcern.errors import DiffcernError, UsageError, first_line

TEXT = ("*.json", "*.txt", "*.model", "*.jinja")  # configurations, tokenizers and chat templates


def download(name: str, patterns: Sequence[str], configuration: str = "config.json") -> Path:
    """The folder that `name` stands for: a local one as it is, or a hub repository ("OWNER/NAME[@REVISION]") with at
    least its files `patterns`.

    configuration: a file that every such repository has. Where the hub cannot be reached, a cached repository with
    that file is taken as it is: another library may have fetched no more than it needed, and the reader says what is
    missing. Raises UsageError for a name that can be neither, DiffcernError for a repository that does not exist or
    cannot be reached.
    """
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download, try_to_load_from_cache  # slow to import, and only needed here
    from huggingface_hub.utils import HFValidationError, RepositoryNotFoundError

    repository, _, revision = name.partition("@")
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=list(patterns)))
    except HFValidationError as error:
        raise UsageError(f"{name!r} is neither a folder nor a hub repository (OWNER/NAME)") from error
    except RepositoryNotFoundError as error:
        raise DiffcernError(
            f"the hub has no repository {name!r} that you may read: check its name, or log in with `hf auth login`"
        ) from error
    except Exception as error:  # no network in one of its many forms
        cached = try_to_load_from_cache(repository, configuration, revision=revision or None)
        if isinstance(cached, str):
            return Path(cached).parent
        raise DiffcernError(
            f"cannot fetch {name!r} and it is not in the cache: give a local folder instead, or run this once on a "
            f"machine with a network and copy its cache ({first_line(error)})"
        ) from error


def holds(folder: Path, patterns: Sequence[str]) -> bool:
    """Whether any of the files is there."""
    return any(True for pattern in patterns for _ in folder.glob(pattern))


def check_weights(folder: Path, name: str, safe: Sequence[str], pickled: Sequence[str], allow_pickle: bool) -> None:
    """Raises DiffcernError unless the folder holds weights as safetensors, or as pickles where those are allowed.

    name: what messages call it. safe, pickled: patterns, of which messages show the first.
    """
    if holds(folder, safe) or (allow_pickle and holds(folder, pickled)):
        return
    wanted, other = (patterns[0].replace("*", "") for patterns in (safe, pickled))
    if allow_pickle:
        raise DiffcernError(f"{name} has no weights: neither {wanted} nor {other}")
    raise DiffcernError(
        f"{name} is incomplete, or has no weights in safetensors format ({wanted}). Pickled weights can run code when "
        "they are read: convert them, or pass allow_pickle=True (--allow-pickle) if you trust where they come from"
    )
