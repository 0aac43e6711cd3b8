"""The rows of a table in parts, once it is made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

from diffcern.run.journal import read_rows
from diffcern.run.manifest import Line

Row = dict[str, Any]


class RowsOfParts(Sequence[Row]):
    """Read when they are asked for, part by part."""

    def __init__(self, paths: list[str], lines: list[Line]) -> None:
        self.paths, self._lines = paths, lines
        self._latest: tuple[str, list[Row]] = ("", [])
        self.skipped: int = sum(line["skipped"] for line in lines)

    def __len__(self) -> int:
        return sum(line["rows"] for line in self._lines)

    def __iter__(self) -> Iterator[Row]:
        for path in self.paths:
            yield from read_rows(path)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[place] for place in range(len(self))[index]]
        place = range(len(self))[index]
        for path, line in zip(self.paths, self._lines, strict=True):
            if place < line["rows"]:
                if self._latest[0] != path:
                    self._latest = path, read_rows(path)
                return self._latest[1][place]
            place -= line["rows"]
        raise IndexError(index)
