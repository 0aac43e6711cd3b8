"""Where the finished parts of a result lie: in a folder of this machine, or in an object store by `fsspec`.

A part on the way is a file of this machine either way: in that folder, or in one that belongs to the address.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Protocol

from diffcern.data.places import reaching
from diffcern.errors import DiffcernError, UsageError
from diffcern.files import atomically, cache_folder, check_folder, place_of, writing
from diffcern.fingerprints import digest

READ_ONLY = {"http", "https", "github", "git", "zip", "tar", "data"}  # of fsspec's protocols


class Storage(Protocol):
    """journals: the folder of the parts on the way; kept: where what is made is kept, in words."""

    journals: Path
    kept: str

    def check(self) -> None:
        """Raises DiffcernError where nothing can be written there, as far as can be told before."""
        ...

    def held(self) -> AbstractContextManager[None]:
        """While this lasts, no other command of this machine writes there. Raises DiffcernError where one does."""
        ...

    def at(self, name: str) -> str:
        """The path or address of a file."""
        ...

    def sizes(self) -> dict[str, int]:
        """Of what lies there, by name."""
        ...

    def write(self, name: str, make: Callable[[Path], object]) -> int:
        """A file, whole, which `make` writes on this machine; its size."""
        ...

    def delete(self, name: str) -> None: ...


class LocalFolder:
    """A `Storage` on this machine."""

    def __init__(self, folder: Path) -> None:
        self.journals, self.kept = folder, f"in {folder}"

    def __str__(self) -> str:
        return str(self.journals)

    def check(self) -> None:
        check_folder(self.journals)

    def held(self) -> AbstractContextManager[None]:
        return writing(self.journals)

    def at(self, name: str) -> str:
        return str(self.journals / name)

    def sizes(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for path in self.journals.iterdir() if self.journals.is_dir() else ():
            with suppress(FileNotFoundError):  # of another command
                found[path.name] = path.stat().st_size
        return found

    def write(self, name: str, make: Callable[[Path], object]) -> int:
        atomically(self.journals / name, make)
        return (self.journals / name).stat().st_size

    def delete(self, name: str) -> None:
        (self.journals / name).unlink(missing_ok=True)


class ObjectStore:
    """A `Storage` at an address. Raises UsageError for no folder's, and as `reaching`, like whatever asks the store.

    Stores replace an object whole; where a kill leaves half a file, the manifest has no line of it.
    """

    def __init__(self, address: str) -> None:
        with reaching(address):
            import fsspec

            self._system, root = fsspec.url_to_fs(address)
        if READ_ONLY & {*([names] if isinstance(names := self._system.protocol, str) else names)}:
            raise UsageError(
                f"{address} is read only: give --out a folder of this machine, or s3://, gs:// or another store"
            )
        self._address, self._root = address.rstrip("/"), root.rstrip("/")
        name, suffix = PurePosixPath(root).name, PurePosixPath(root).suffix
        if suffix or not name:
            raise UsageError(f"a store takes results in parts: give --out a folder in it, without a dot, not {address}")
        whole = digest(self._system.unstrip_protocol(self._root))
        self.journals = working_folders() / f"{name}-{whole}"
        self.kept = f"in {self} and, of parts on the way, in {self.journals} on this machine"

    def __str__(self) -> str:
        return self._address

    def check(self) -> None:
        check_folder(self.journals, "name a folder that can be written in XDG_CACHE_HOME")

    @contextmanager
    def held(self) -> Iterator[None]:
        with writing(self.journals, of=self):
            yield
        with suppress(OSError):  # parts on the way are in it
            self.journals.rmdir()

    def at(self, name: str) -> str:
        return f"{self}/{name}"

    def sizes(self) -> dict[str, int]:
        with reaching(str(self)):
            self._system.invalidate_cache()
            try:
                found = self._system.ls(self._root, detail=True)
            except FileNotFoundError:
                return {}
        if any(entry["name"] == self._root and entry["type"] == "file" for entry in found):
            raise DiffcernError(f"{self} is a file: give another --out")
        return {PurePosixPath(entry["name"]).name: entry["size"] for entry in found}

    def write(self, name: str, make: Callable[[Path], object]) -> int:
        file = self.journals / f".{name}.upload"
        try:
            make(file)
            with reaching(self.at(name), "write"):
                self._system.put_file(str(file), f"{self._root}/{name}")
            return file.stat().st_size
        finally:
            file.unlink(missing_ok=True)

    def delete(self, name: str) -> None:
        with reaching(self.at(name), "delete"), suppress(FileNotFoundError):
            self._system.rm_file(f"{self._root}/{name}")


def storage_of(out: Path | str) -> LocalFolder | ObjectStore:
    """Of a path or an address."""
    place = place_of(out)
    return LocalFolder(place) if isinstance(place, Path) else ObjectStore(place)


def working_folders() -> Path:
    """Where the parts on the way to stores are, a folder for each address."""
    return cache_folder("parts")
