"""Model repositories as local folders: fetched from the Hugging Face hub once, then read from its cache.

Knows nothing about models; predictors and priors say which files they need.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from diffcern.errors import DiffcernError, UsageError, first_line
from diffcern.watching import doing, note

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
        with doing(f"fetching {repository} from the hub"):
            fetched = Path(snapshot_download(repository, revision=revision or None, allow_patterns=list(patterns)))
        note(f"{repository} is read from {fetched}")
        return fetched
    except HFValidationError as error:
        raise UsageError(
            f"{name!r} is neither a folder nor a hub repository (OWNER/NAME): check its spelling"
        ) from error
    except RepositoryNotFoundError as error:
        raise DiffcernError(
            f"the hub has no repository {name!r} that you may read: check its name, or log in with `hf auth login`"
        ) from error
    except Exception as error:  # no network in one of its many forms
        cached = try_to_load_from_cache(repository, configuration, revision=revision or None)
        if isinstance(cached, str):
            note(f"the hub cannot be reached: {repository} is read from {Path(cached).parent}")
            return Path(cached).parent
        raise DiffcernError(
            f"cannot fetch {name!r} and it is not in the cache: give a local folder instead, or run this once on a "
            f"machine with a network and copy its cache ({first_line(error)})"
        ) from error


def holds(folder: Path, patterns: Sequence[str]) -> bool:
    """Whether any of the files is there."""
    return any(True for pattern in patterns for _ in folder.glob(pattern))
