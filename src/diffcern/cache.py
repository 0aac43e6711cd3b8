"""Purify once, evaluate many: tensors on disk, named by what they were computed from.

An entry is a safetensors file with a digest of its content, so that a damaged one is noticed and computed again. It is
written under another name and renamed: several processes may share a folder, and a kill leaves no half entry.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from diffcern.errors import DiffcernError
from diffcern.files import write_whole


class TensorCache:
    """A folder of at most `limit` bytes; beyond it the entries that were not used for longest go.

    A full or failing disk costs the entry, not the run: `put` then leaves the cache as it is. Raises DiffcernError
    where the folder cannot be made.
    """

    def __init__(self, folder: Path, limit: int = 10 * 2**30) -> None:
        self.folder, self.limit = folder, limit
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:  # ValueError: a zero byte in its name
            reason = getattr(error, "strerror", None) or error
            raise DiffcernError(f"cannot make the cache folder {str(folder)!r}: {reason}") from error
        self._size = sum(size for _, size, _ in self._entries())  # what others add shows at the next clean-up

    def get(self, key: str) -> Tensor | None:
        """The tensor under this key; None where there is none, or a damaged one."""
        path = self._path(key)
        try:
            with safe_open(path, framework="pt") as file:
                tensor = file.get_tensor("value")
                intact = (file.metadata() or {}).get("digest") == _digest(tensor)
            os.utime(path)  # used now
        except Exception:  # absent, truncated, garbage: whatever the reader makes of it
            return None
        return tensor if intact else None

    def put(self, key: str, tensor: Tensor) -> None:
        """Keeps the tensor, bit for bit."""
        value = tensor.detach().cpu().contiguous()
        content = save({"value": value}, {"digest": _digest(value)})
        path = self._path(key)
        try:
            path.parent.mkdir(exist_ok=True)
            write_whole(path, content)
        except OSError:
            return
        self._size += len(content)
        if self._size > self.limit:
            self._clean()

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"

    def _entries(self) -> list[tuple[float, int, Path]]:
        """(last use, size, path) of each entry, those that vanish meanwhile left out."""
        found = []
        for path in self.folder.glob("*/*.safetensors"):
            with contextlib.suppress(OSError):
                state = path.stat()
                found.append((state.st_mtime, state.st_size, path))
        return found

    def _clean(self) -> None:
        """Down to nine tenths of the limit, the longest unused first."""
        entries = sorted(self._entries(), key=lambda entry: entry[0])
        self._size = sum(size for _, size, _ in entries)
        for _, size, path in entries:
            if self._size <= 0.9 * self.limit:
                break
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            self._size -= size


def _digest(tensor: Tensor) -> str:
    header = f"{tensor.dtype} {tuple(tensor.shape)}".encode()
    return hashlib.blake2b(header + tensor.numpy().tobytes(), digest_size=16).hexdigest()
