"""A table in parts: a folder of Parquet files, each of `PART` successive rows by their ids, and a manifest.

    rows/_manifest.jsonl         a line of settings, then one for each part that is done
    rows/part-000000.parquet     every reader of folders of Parquet takes them as one table

It lies here or in an object store. A part on the way is a `Journal` of this machine, so that a kill loses no row. The
journal goes last: where a kill comes before, the part is written again, for one without a line does not count. What is
done is not read again, and no more rows are in memory than those of the parts on the way (and of what their scores are
made from, where a job has a measure).
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from diffcern.data.places import for_arrow
from diffcern.errors import DiffcernError
from diffcern.files import LOCK, reading
from diffcern.run import manifest
from diffcern.run.digests import Digests, beside
from diffcern.run.finished import RowsOfParts
from diffcern.run.journal import Journal, Write, begun
from diffcern.run.manifest import Line, Manifest, content, stamp
from diffcern.run.storage import storage_of

Row = dict[str, Any]
PART = 1000
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
    """Rows by place, into a folder or a store. settings: what they depend on; ids: of all, in order; digests: of what
    those at some places are about; schema: of the parts. form: a suffix, and what writes such a file, where parts are
    no tables.

    Raises DiffcernError for a folder that holds something else, rows of other settings (unless overwrite) or of things
    that have changed since, or parts that are damaged; for one that another command is writing; and as `Storage`.
    """

    def __init__(
        self,
        out: Path | str,
        settings: dict[str, Any],
        ids: Sequence[str],
        *,
        overwrite: bool = False,
        digests: Callable[[Path, Sequence[int]], Digests] | None = None,
        schema: pa.Schema | None = None,
        form: tuple[str, Write] | None = None,
    ) -> None:
        self.storage = storage_of(out)
        self.settings, self.ids, self.digests, self.schema = settings, ids, digests, schema
        self.suffix = form[0] if form else ".parquet"
        self.write = form[1] if form else None
        check_parts(out)
        self._held = ExitStack()
        self._held.enter_context(self.storage.held())
        self._count = -(-len(ids) // PART)
        again = f"give another --out{', or --overwrite to start again' if not self.write else ''}"
        self._manifest = Manifest(self.storage, {**settings, "rows": len(ids), "part": PART}, again)
        self._done: dict[int, Line] = {}
        self._open: dict[int, Part] = {}
        self._of: dict[str, int] = {}  # the part on the way that a row belongs to
        try:
            self._read(overwrite)
            left = [number for number in range(self._count) if number not in self._done]
            for number in [number for number in left if begun(self.journal(number))]:
                self._begin(number, overwrite)
        except BaseException:
            self.close()
            raise
        self._ahead = iter([number for number in left if number not in self._open])

    def name(self, number: int) -> str:
        return f"part-{number:06}{self.suffix}"

    def journal(self, number: int) -> Path:
        """The file whose `Journal` has the rows of a part on the way."""
        return self.storage.journals / self.name(number)

    @property
    def kept(self) -> str:
        return f"{self.done} rows are kept {self.storage.kept}: run the same command to continue"

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
        part = self._part_of(row["id"])
        part.journal.add(row)
        if len(part.journal.rows) == len(part.places):
            self._end(part)

    def place(self, id: str) -> int:
        """Where a row that comes stands among all."""
        part = self._part_of(id)
        return part.places[part.ids.index(id)]

    def finish(self) -> RowsOfParts:
        """Ends parts for which no more rows come."""
        for part in [*self._open.values()]:
            self._end(part)
        done = sorted(self._done)
        return RowsOfParts([self.storage.at(self.name(n)) for n in done], [self._done[n] for n in done])

    def close(self) -> None:
        """Lets go of the folder: the same command goes on with it."""
        for part in self._open.values():
            part.journal.close()
        self._held.close()

    def _part_of(self, id: str) -> Part:
        while id not in self._of:
            if (number := next(self._ahead, None)) is None:
                raise DiffcernError(f"{self.storage} has a row of {id!r} already, or none is wanted: run again")
            self._begin(number)
        return self._open[self._of[id]]

    def _places(self, number: int) -> range:
        return range(number * PART, min((number + 1) * PART, len(self.ids)))

    def _digests(self, number: int) -> tuple[list[str], Digests | None]:
        places = self._places(number)
        ids = [self.ids[place] for place in places]
        return ids, self.digests(self.journal(number), places) if self.digests else None

    def _begin(self, number: int, overwrite: bool = False) -> None:
        ids, digests = self._digests(number)
        how: dict[str, Any] = {"overwrite": overwrite, "schema": self.schema, "write": self.write}
        journal = Journal(self.journal(number), {**self.settings, "part": number}, digest=digests, **how)
        self._open[number] = Part(number, self._places(number), ids, digests, journal)
        self._of |= dict.fromkeys(ids, number)

    def _end(self, part: Part) -> None:
        """The part, then its line, and the journal last."""
        rows = part.journal.rows
        skipped = sum(bool(row["error"]) for row in rows)
        size = self.storage.write(self.name(part.number), part.journal.write)
        line: Line = {"part": part.number, "rows": len(rows), "skipped": skipped, "bytes": size}
        line |= {"stamp": stamp(part.ids, part.digests), "content": content(part.ids, part.digests)}
        self._manifest.write(self._done | {part.number: line})
        self._done[part.number] = line
        part.journal.remove()
        del self._open[part.number]
        for id in part.ids:
            del self._of[id]

    def _read(self, overwrite: bool) -> None:
        """Takes the parts that are done; deletes files of others, and what is left of journals of theirs."""
        sizes = self.storage.sizes()
        there = fnmatch.filter(sizes, f"part-*{self.suffix}")
        known = self._manifest.read(sizes, bool(there), overwrite)
        done = {number: line for number, line in (known or {}).items() if self._whole(number, line, sizes, overwrite)}
        again = overwrite and (known is None or len(done) == self._count)
        if again:
            done = {}
        names = {self.name(number) for number in done}
        for name in there:
            if name not in names:
                self.storage.delete(name)
        for path in self.storage.journals.glob(".part-*"):
            if again or path.name[1:].startswith(tuple(names)):
                path.unlink()
        self._manifest.write(done)
        self._done = done

    def _whole(self, number: int, line: Line, sizes: Mapping[str, int], overwrite: bool) -> bool:
        """Whether a part is there, and about what is there now. Raises DiffcernError."""
        name = self.name(number)
        if name not in sizes:
            return False
        path, rows = self.storage.at(name), line["rows"]
        same = line.get("bytes", sizes[name]) == sizes[name]  # older versions say it of shards alone
        if same and not self.write:
            with for_arrow(path) as file, reading(path, f"To mend it, {AGAIN}"):
                rows = pq.read_metadata(file).num_rows
        if not same or rows != line["rows"]:
            raise DiffcernError(f"{path} is not as it was written: {AGAIN}")
        ids, digests = self._digests(number)
        now = stamp(ids, digests)
        if now and now == line["stamp"]:
            return True
        same = content(ids, digests) == line["content"]
        beside(self.journal(number)).unlink(missing_ok=True)
        if not same and not overwrite:
            raise DiffcernError(f"{path} is about what has changed since: {AGAIN}, or give another --out")
        line["stamp"] = now
        return same


def check_parts(out: Path | str) -> None:
    """Raises DiffcernError for a folder that holds something else, or that cannot be written, and as `Storage`."""
    storage = storage_of(out)
    storage.check()
    names = storage.sizes().keys() - {LOCK}
    if names and manifest.NAME not in names:
        raise DiffcernError(
            f"{storage} holds other files: give --out a folder of its own, or a file (.parquet, .csv, .json)"
        )
