"""Folders and files: checked before work begins, written whole, and named where they cannot be read."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from diffcern.errors import DiffcernError, UsageError

LOCK = ".lock"  # in a folder that is being written


def is_url(name: str) -> bool:
    """Whether it is of an object store, and not of this machine."""
    return "://" in name


def place_of(name: Path | str) -> Path | str:
    """A path of this machine; the address of a store as it is, for a Path would lose one of its slashes."""
    name = str(name).removeprefix("file://")
    return name if is_url(name) else Path(name)


def path_of(name: Path | str) -> Path:
    """Raises UsageError for the address of a store, where results go to a disk alone."""
    place = place_of(name)
    if isinstance(place, Path):
        return place
    raise UsageError(f"results of this command go to a disk: give --out a path of this machine, not {name}")


def cache_folder(name: str) -> Path:
    """The folder of that name among those in which diffcern keeps things on this machine for later commands."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diffcern" / name


def check_apart(what: str, folder: Path, images: Path) -> None:
    """Raises UsageError where results would be written among the images: many have one name, and the next command would
    take them for images. what: the results, as a message calls them."""
    if images.exists() and images.resolve() in (folder.resolve(), *folder.resolve().parents):
        raise UsageError(f"{what} would be written into {folder}, where the images are: give --out another name")


def check_folder(folder: Path, advice: str = "give another --out") -> None:
    """Raises DiffcernError where that folder cannot be made or written into; makes nothing itself."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise DiffcernError(f"cannot write into {folder}: {nearest} is a file; {advice}")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise DiffcernError(f"cannot write into {folder}: {nearest} is read-only; {advice}")


def lock(file: IO[Any]) -> None:
    """Raises BlockingIOError where another process holds it. The system lets go of it whichever way a command ends;
    on a file system that knows no locks nothing is held."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
            raise


@contextmanager
def writing(folder: Path, part: str = "", of: object = None) -> Iterator[None]:
    """While this lasts, no other command writes there, or that part of it. Makes the folder. of: what it is for, where
    that is not the folder itself. Raises DiffcernError where another one is at it."""
    place, new = folder / f"{LOCK}{part}", not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _locked(place)
    except BlockingIOError as error:
        raise DiffcernError(f"another command is writing {of or folder}: wait for it, or give another --out") from error
    except OSError as error:
        raise DiffcernError(f"cannot write into {folder}: {error.strerror}; give another --out") from error
    with file:
        try:
            yield
        finally:
            place.unlink(missing_ok=True)
            if new and not any(folder.iterdir()):
                folder.rmdir()


def _locked(place: Path) -> IO[str]:
    """The file of that name, locked: who had it before may have taken the name away in between."""
    while True:
        file = place.open("a")
        try:
            lock(file)
            if place.exists() and os.path.samestat(os.fstat(file.fileno()), place.stat()):
                return file
        except FileNotFoundError:
            pass
        except BaseException:
            file.close()
            raise
        file.close()


def check_files(kind: str, folder: Path, patterns: Sequence[str]) -> None:
    """Raises DiffcernError that lists what a folder of diffcern's own lacks, and names the pickle in its place."""
    missing = [pattern for pattern in patterns if not any(folder.glob(pattern))]
    if missing:
        pickles = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*.bin"))]
        advice = f"; {pickles[0]} is a pickle, and such folders hold safetensors only" if pickles else ""
        raise DiffcernError(f"the {kind} in {folder} lacks {', '.join(missing)}{advice}")


@contextmanager
def reading(path: Path | str, advice: str) -> Iterator[None]:
    """Turns whatever a reader raises into a DiffcernError that names the file."""
    try:
        yield
    except DiffcernError:
        raise
    except BaseException as error:  # every reader has its own
        if not isinstance(error, Exception) and type(error).__module__ != "pyo3_runtime":  # a panic in Rust
            raise
        what = " ".join(str(error).split())[:300]
        raise DiffcernError(f"cannot read {path}: {what or type(error).__name__}. {advice}") from error


def atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Calls write(temporary path) and renames the result: a kill leaves the old file or none.

    The temporary name is of this process and thread alone, so that several can share a folder.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.partial")
    try:
        write(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Writes the file `atomically`."""
    atomically(path, lambda partial: partial.write_bytes(content))
