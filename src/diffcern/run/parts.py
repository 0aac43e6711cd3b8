"""A table in parts: a folder of Parquet files, each of `PART` successive rows by their ids, and a manifest.

    rows/_manifest.jsonl         a line of settings, then one for each part that is done
    rows/part-000000.parquet     every reader of folders of Parquet takes them as one table

A part on the way is a `Journal`, so that a kill loses no row; what is done is not read again, and no more rows are in
memory than those of the parts on the way (and of what their scores are made from, where a job has a measure).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import pyarrow as pa
import pyarrow.parquet as pq

from diffcern.claims import changed, listed
from diffcern.errors import DiffcernError
from diffcern.files import LOCK, check_folder, reading, write_whole, writing
from diffcern.fingerprints import digest
from diffcern.run.digests import Digests, beside
from diffcern.run.journal import Journal, Write, begun, read_rows

Row = dict[str, Any]
PART = 1000
MANIFEST = "_manifest.jsonl"  # Parquet's readers pass over names that begin so
AGAIN = "delete it, and the same command makes it again"


@dataclass
class Part:
    """One on the way. places: of the rows that it is to hold; digests: of what they are about."""

    number: int
    places: range
    ids: list[str]
    digests: Digests | None
    journal: Journal


class Parts:
    """Rows by place, into a folder. settings: what they depend on; ids: of all, in order; digests: of what those at
    some places are about; schema: of the parts. form: a suffix, and what writes such a file, where parts are no tables.

    Raises DiffcernError for a folder that holds something else, rows of other settings (unless overwrite) or of things
    that have changed since, or parts that are damaged; and for one that another command is writing.
    """

    def __init__(
        self,
        out: Path,
        settings: dict[str, Any],
        ids: Sequence[str],
        *,
        overwrite: bool = False,
        digests: Callable[[Path, Sequence[int]], Digests] | None = None,
        schema: pa.Schema | None = None,
        form: tuple[str, Write] | None = None,
    ) -> None:
        self.out, self.settings, self.ids, self.digests, self.schema = out, settings, ids, digests, schema
        self.suffix = form[0] if form else ".parquet"
        self.write = form[1] if form else None
        check_parts(out)
        self._held = ExitStack()
        self._held.enter_context(writing(out))
        self._count = -(-len(ids) // PART)
        self._header = json.dumps({**settings, "rows": len(ids), "part": PART}, sort_keys=True, default=str)
        self._open: dict[int, Part] = {}
        self._of: dict[str, int] = {}  # the part on the way that a row belongs to
        try:
            self._done = self._read(overwrite)
            left = [number for number in range(self._count) if number not in self._done]
            for number in [number for number in left if begun(self.path(number))]:
                self._begin(number, overwrite)
        except BaseException:
            self.close()
            raise
        self._ahead = iter([number for number in left if number not in self._open])

    def path(self, number: int) -> Path:
        return self.out / f"part-{number:06}{self.suffix}"

    keeps = True

    @property
    def done(self) -> int:
        """Rows that are there."""
        return sum(line["rows"] for line in self._done.values()) + sum(len(p.journal.rows) for p in self._open.values())

    @property
    def skipped(self) -> int:
        """Of the parts that are done."""
        return sum(line["skipped"] for line in self._done.values())

    def todo(self) -> list[Sequence[int]]:
        """Places whose rows are not there: those of each part."""
        found: list[Sequence[int]] = []
        for number in range(self._count):
            if number in self._open:
                part = self._open[number]
                have = {row["id"] for row in part.journal.rows}
                found.append([place for place, id in zip(part.places, part.ids, strict=True) if id not in have])
            elif number not in self._done:
                found.append(self._places(number))
        return found

    def add(self, row: Row) -> None:
        """One more row, handed to the system when this returns."""
        while row["id"] not in self._of:
            if (number := next(self._ahead, None)) is None:
                raise DiffcernError(f"{self.out} has a row of {row['id']!r} already, or none is wanted: run again")
            self._begin(number)
        part = self._open[self._of[row["id"]]]
        part.journal.add(row)
        if len(part.journal.rows) == len(part.places):
            self._end(part)

    def finish(self) -> RowsOfParts:
        """Ends parts for which no more rows come."""
        for part in [*self._open.values()]:
            self._end(part)
        lines = [self._done[number] for number in sorted(self._done)]
        return RowsOfParts([self.path(number) for number in sorted(self._done)], lines)

    def close(self) -> None:
        """Lets go of the folder: the same command goes on with it."""
        for part in self._open.values():
            part.journal.close()
        self._held.close()

    def _places(self, number: int) -> range:
        return range(number * PART, min((number + 1) * PART, len(self.ids)))

    def _digests(self, number: int) -> tuple[list[str], Digests | None]:
        places = self._places(number)
        ids = [self.ids[place] for place in places]
        return ids, self.digests(self.path(number), places) if self.digests else None

    def _begin(self, number: int, overwrite: bool = False) -> None:
        ids, digests = self._digests(number)
        how: dict[str, Any] = {"overwrite": overwrite, "schema": self.schema, "write": self.write}
        journal = Journal(self.path(number), {**self.settings, "part": number}, digest=digests, **how)
        self._open[number] = Part(number, self._places(number), ids, digests, journal)
        self._of |= dict.fromkeys(ids, number)

    def _end(self, part: Part) -> None:
        """The line comes first: where a kill comes between, the journal is there, and the part is ended again."""
        rows, path = part.journal.rows, self.path(part.number)
        skipped = sum(bool(row["error"]) for row in rows)
        line: dict[str, Any] = {"part": part.number, "rows": len(rows), "skipped": skipped}
        line |= {"stamp": stamp(part.ids, part.digests), "content": content(part.ids, part.digests)}
        self._write(line)
        part.journal.finish()
        if self.write:  # which does not tell how many rows are in it
            line["bytes"] = path.stat().st_size
            self._write(line)
        self._done[part.number] = line
        del self._open[part.number]
        for id in part.ids:
            del self._of[id]

    def _write(self, line: dict[str, Any]) -> None:
        with (self.out / MANIFEST).open("a") as file:
            file.write(json.dumps(line) + "\n")

    def _read(self, overwrite: bool) -> dict[int, dict[str, Any]]:
        """The lines of the parts that are done; others, and a torn last one, are left out, from the file too."""
        manifest = self.out / MANIFEST
        text = manifest.read_text(errors="replace") if manifest.is_file() else ""
        first, *lines = text.split("\n")
        known: dict[int, dict[str, Any]] = {}
        for line in lines:
            with suppress(ValueError, KeyError, TypeError):  # torn
                found = json.loads(line)
                known[int(found["part"])] = found
        same = first == self._header
        if not same and not overwrite:
            self._refuse(first)
        done = {number: line for number, line in known.items() if same and self._whole(number, line, overwrite)}
        if not same or (overwrite and len(done) == self._count):
            for path in (*self.out.glob(f"part-*{self.suffix}"), *self.out.glob(".part-*.jsonl")):
                path.unlink()
            done = {}
        whole = "\n".join([self._header, *(json.dumps(done[number]) for number in sorted(done)), ""])
        if whole != text:
            write_whole(manifest, whole.encode())
        return done

    def _refuse(self, first: str) -> None:
        """Raises DiffcernError where what is there was made otherwise, or nobody knows how."""
        if not first and not any(self.out.glob("part-*")):
            return
        again = f"give another --out{', or --overwrite to start again' if not self.write else ''}"
        with suppress(ValueError, AttributeError):
            said = listed(changed(json.loads(first), json.loads(self._header)))
            raise DiffcernError(f"{self.out} was begun with other settings ({said}): {again}")
        raise DiffcernError(f"{self.out / MANIFEST} is damaged in line 1: {again}")

    def _whole(self, number: int, line: dict[str, Any], overwrite: bool) -> bool:
        """Whether a part is there, and about what is there now. Raises DiffcernError."""
        path = self.path(number)
        if not path.is_file():
            return False
        size, rows = path.stat().st_size, line["rows"]
        if not self.write:
            with reading(path, f"To mend it, {AGAIN}"):
                rows = pq.read_metadata(path).num_rows
        if rows != line["rows"] or line.get("bytes", size) != size:
            raise DiffcernError(f"{path} is not as it was written: {AGAIN}")
        ids, digests = self._digests(number)
        now = stamp(ids, digests)
        if now and now == line["stamp"]:
            return True
        same = content(ids, digests) == line["content"]
        beside(path).unlink(missing_ok=True)
        if not same and not overwrite:
            raise DiffcernError(f"{path} is about what has changed since: {AGAIN}, or give another --out")
        if not same:
            path.unlink()
        line["stamp"] = now
        return same


def check_parts(out: Path) -> None:
    """Raises DiffcernError for a folder that holds something else, or that cannot be written."""
    check_folder(out)
    others = [path for path in out.iterdir() if path.name != LOCK] if out.is_dir() else []
    if others and not (out / MANIFEST).is_file():
        raise DiffcernError(
            f"{out} holds other files: give --out a folder of its own, or a file (.parquet, .csv, .json)"
        )


def stamp(ids: Sequence[str], digests: Digests | None) -> str:
    """Of the files that rows are about; "" where that cannot be told."""
    stamps = [digests.stamp(id) for id in ids] if digests else []
    return digest([list(ids), stamps]) if stamps and all(stamps) else ""


def content(ids: Sequence[str], digests: Digests | None) -> str:
    """Of what rows are about."""
    return digest([[id, digests(id) if digests else ""] for id in ids])


class RowsOfParts(Sequence[Row]):
    """Read when they are asked for, part by part."""

    def __init__(self, paths: list[Path], lines: list[dict[str, Any]]) -> None:
        self.paths, self._lines = paths, lines
        self._latest: tuple[Path, list[Row]] = (Path(), [])
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
