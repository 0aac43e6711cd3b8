"""The names of a data set's images: all different, and of very many none is held in memory."""

from __future__ import annotations

import mmap
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, overload

import numpy as np

from diffcern.errors import DiffcernError

FEW = 100_000  # as many are a list; more lie in a file
BLOCK = 65_536  # names of the file that are written, and read by who goes through all of them, at once


class Names(Sequence[str]):
    """Names in an Arrow file in the directory for temporary files, itself without a name; read when asked for."""

    def __init__(self, names: Iterable[str]) -> None:
        import pyarrow as pa  # slow to import, and only needed here

        names, schema = iter(names), pa.schema([("name", pa.string())])
        with tempfile.TemporaryFile() as file:
            with pa.ipc.new_file(file, schema) as out:
                while block := list(islice(names, BLOCK)):
                    out.write_batch(pa.record_batch([pa.array(block, pa.string())], schema))
            file.flush()
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        reader = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(mapped)))
        self._blocks: list[Any] = [reader.get_batch(number).column(0) for number in range(reader.num_record_batches)]
        self._count = sum(map(len, self._blocks))

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [self[place] for place in range(self._count)[index]]
        block, row = divmod(range(self._count)[index], BLOCK)
        name: str = self._blocks[block][row].as_py()
        return name

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(block.to_pylist() for block in self._blocks)

    def __reduce__(self) -> tuple[type[Names], tuple[list[str]]]:
        """For another process, which writes a file of its own."""
        return Names, (list(self),)


def unique(names: Iterable[str], where: str) -> Sequence[str]:
    """The names, which are gone through once; `DiffcernError` where one occurs twice: two samples would share random
    numbers and records. where: whose they are, in messages."""
    names = iter(names)
    first = list(islice(names, FEW + 1))
    found: Sequence[str] = first if len(first) <= FEW else Names(chain(first, names))
    hashes = np.sort(np.fromiter(map(hash, found), np.int64, len(found)))  # 8 bytes each, where a set has a hundred
    suspects = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    most = Counter(name for name in found if hash(name) in suspects).most_common(1) if suspects else []
    if most and most[0][1] > 1:
        raise DiffcernError(f"{where}: ids must be unique, but {most[0][0]!r} occurs {most[0][1]} times.")
    return found
