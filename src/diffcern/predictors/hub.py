"""Model repositories as local folders: fetched from the Hugging Face hub once, then read from its cache."""

from __future__ import annotations

from pathlib import Path

from diffcern.errors import DiffcernError, UsageError

TEXT = ("*.json", "*.txt", "*.model")  # configurations and tokenizers
SAFE, PICKLED = ("model*.safetensors",), ("pytorch_model*.bin",)


def fetch(name: str, *, allow_pickle: bool = False, code: bool = False) -> Path:
    """The folder that `name` stands for: a local one, or a hub repository "OWNER/NAME" or "OWNER/NAME@REVISION".

    allow_pickle: fetch pickled weights where there are no others; code: fetch Python files too. Raises UsageError for
    a name that can be neither, DiffcernError for a repository that does not exist or cannot be reached.
    """
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        return folder
    folder = _download(name, (*TEXT, *SAFE, *(("*.py",) if code else ())))
    return _download(name, (*TEXT, *PICKLED)) if allow_pickle and not _holds(folder, SAFE) else folder


def refuse_pickles(folder: Path, name: str, allow_pickle: bool) -> None:
    """Raises DiffcernError unless the folder holds safetensors weights, or pickled ones where those are allowed."""
    if _holds(folder, SAFE):
        return
    if not allow_pickle:
        raise DiffcernError(
            f"{name} has no weights in safetensors format (model.safetensors). Pickled weights can run code when they "
            "are read: convert them, or pass allow_pickle=True if you trust where they come from"
        )
    if not _holds(folder, PICKLED):
        raise DiffcernError(f"{name} has no weights: neither model.safetensors nor pytorch_model.bin")


def first_line(error: Exception) -> str:
    """What happened, in short."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def _holds(folder: Path, patterns: tuple[str, ...]) -> bool:
    return any(True for pattern in patterns for _ in folder.glob(pattern))


def _download(name: str, patterns: tuple[str, ...]) -> Path:
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
        cached = try_to_load_from_cache(repository, "config.json", revision=revision or None)
        if isinstance(cached, str):  # put there by another library, which fetched only what it needed
            return Path(cached).parent
        raise DiffcernError(
            f"cannot fetch {name!r} and it is not in the cache: give a local folder instead, or run this once on a "
            f"machine with a network and copy its cache ({first_line(error)})"
        ) from error
