"""Files wherever they lie: on this machine, or in an object store (s3://, gs://, hf://, memory://) by `fsspec`."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from diffcern.errors import DiffcernError, UsageError, first_line
from diffcern.files import is_url

VERSIONS = ("ETag", "etag", "md5Hash", "generation", "blob_id", "LastModified", "last_modified", "mtime", "created")
BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")  # {000..011}, as WebDataset writes shards


class Unreachable(DiffcernError):
    """A store that does not answer now: what it holds may be as good as ever."""


def files_of(pattern: str, suffix: str) -> list[str]:
    """The files that a path, a folder of files with that suffix, or a pattern with *, ? or {000..011} stands for, in
    order. Raises DiffcernError for none, and as `reaching`."""
    found: list[str] = []
    names = [pattern] if Path(pattern).exists() else [*_spelt_out(pattern)]
    for name in names:
        before = len(found)
        if is_url(name):
            with reaching(name):
                import fsspec

                system, path = fsspec.url_to_fs(name)
                inner = sorted(system.glob(f"{path.rstrip('/')}/*{suffix}")) if system.isdir(path) else None
                matches = inner if inner is not None else sorted(system.glob(path)) if "*" in path else [path]
                found += [system.unstrip_protocol(match) for match in matches if system.isfile(match)]
        else:
            found += _local(Path(name), suffix)
        if len(found) == before and len(names) > 1:
            raise DiffcernError(f"no {suffix} file at {name}, which is one of {pattern}: all of them are wanted.")
    if not found:
        raise DiffcernError(f"no {suffix} file at {pattern}: give a file, a folder of *{suffix}, or a pattern.")
    return found


def _local(place: Path, suffix: str) -> list[str]:
    """A file or a folder's files, whatever signs its name holds; else what the pattern stands for."""
    if place.is_dir():
        return sorted(str(file) for file in place.glob(f"*{suffix}") if not file.name.startswith("."))
    return [str(place)] if place.is_file() else sorted(glob.glob(str(place), recursive=True))  # noqa: PTH207


def _spelt_out(pattern: str) -> Iterator[str]:
    braces = BRACES.search(pattern)
    if braces is None:
        yield pattern
        return
    first, last = braces.groups()
    for number in range(int(first), int(last) + 1):
        yield from _spelt_out(f"{pattern[: braces.start()]}{number:0{len(first)}d}{pattern[braces.end() :]}")


def open_file(name: str) -> IO[bytes]:
    """To be read from any place of it. Raises as `reaching`."""
    if not is_url(name):
        return open(name, "rb")  # noqa: PTH123
    with reaching(name):
        import fsspec

        file: IO[bytes] = fsspec.open(name, "rb").open()
        return file


def read_file(name: str) -> bytes:
    """All of it. Raises as `reaching`."""
    with reaching(name), open_file(name) as file:
        return file.read()


def stretch_of(url: str, start: int, size: int) -> bytes:
    """These bytes of a file in a store and no others, which an open file would fetch ahead; fewer where it ends before.
    Raises as `reaching`."""
    with reaching(url):
        import fsspec

        system, path = fsspec.url_to_fs(url)
        found: bytes = system.cat_file(path, start=start, end=start + size)  # by name: s3fs has another second argument
        return found


def for_arrow(name: str) -> Any:
    """A file of pyarrow, which reads as much of it as it wants; of a store all is read now, so that what fails there is
    not taken for damage. Raises as `reaching`."""
    import pyarrow as pa

    with reaching(name):
        return pa.BufferReader(read_file(name)) if is_url(name) else pa.OSFile(name)


def version_of(url: str) -> str:
    """Of a file in a store what changes with it: its tag, or its size and time; "" where the store tells neither.
    Raises as `reaching`."""
    with reaching(url):
        import fsspec

        system, path = fsspec.url_to_fs(url)
        system.invalidate_cache()
        said = system.info(path)
    told = [f"{name}={said[name]}" for name in VERSIONS if said.get(name) is not None]
    return " ".join([str(said.get("size")), *told]) if told else ""


@contextmanager
def reaching(name: str, what: str = "read") -> Iterator[None]:
    """what: is done there. Raises UsageError for a store that nothing here can speak to, DiffcernError for a file that
    is missing, refused or not to be reached."""
    try:
        yield
    except ImportError as error:  # fsspec says which package speaks to the store
        raise UsageError(f"cannot open {name}: {first_line(error)} (pip install)") from error
    except ValueError as error:  # a protocol that it does not know
        raise UsageError(f"cannot open {name}: {first_line(error)}") from error
    except FileNotFoundError as error:
        if what == "write":
            raise DiffcernError(f"cannot write {name}: {first_line(error)}; make that bucket first") from error
        raise DiffcernError(f"no such file: {name}. Check the name.") from error
    except PermissionError as error:
        raise DiffcernError(f"{name} is refused to you: {first_line(error)}; check your credentials") from error
    except (DiffcernError, KeyboardInterrupt):
        raise
    except Exception as error:  # http, socket, botocore and others, each store with its own
        kind = type(error).__name__
        advice = "check your credentials" if "Credential" in kind else "run again later"
        raise Unreachable(f"cannot {what} {name}: {kind}: {first_line(error)}; {advice}") from error
