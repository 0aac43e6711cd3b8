"""Where the rows of a job go: a file, a folder of parts, here or in a store, or nothing but memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from diffcern.errors import UsageError
from diffcern.files import place_of
from diffcern.jobs.base import Row

if TYPE_CHECKING:
    from diffcern.jobs.rows import Work
    from diffcern.run.journal import Journal


class Sink(Protocol):
    """Where rows go. kept: in words, what outlives the command; done: how many are there; todo: places of the others,
    in stretches that are asked for one after the other; finish: all rows, once no more come; close: lets go of
    files."""

    @property
    def kept(self) -> str: ...
    @property
    def done(self) -> int: ...
    def todo(self) -> Sequence[Sequence[int]]: ...
    def add(self, row: Row) -> None: ...
    def finish(self) -> Sequence[Row]: ...
    def close(self) -> None: ...


class OneTable:
    """Rows in memory, and in the journal of a file where there is one."""

    def __init__(self, ids: Sequence[str], journal: Journal | None) -> None:
        self._ids, self._journal = ids, journal
        self._rows: list[Row] = list(journal.rows) if journal else []

    @property
    def kept(self) -> str:
        return f"{self.done} rows are kept: run the same command to continue" if self._journal else "nothing is kept"

    @property
    def done(self) -> int:
        return len(self._rows)

    def todo(self) -> Sequence[Sequence[int]]:
        have = {row["id"] for row in self._rows}
        return [[place for place, id in enumerate(self._ids) if id not in have]]

    def add(self, row: Row) -> None:
        if self._journal:
            self._journal.add(row)
        self._rows.append(row)

    def finish(self) -> Sequence[Row]:
        if self._journal:
            self._journal.finish()
        return self._rows

    def close(self) -> None:
        if self._journal:
            self._journal.close()


def in_parts(out: Path | str) -> bool:
    """Whether rows go into a folder, here or in a store, and not into one file."""
    return not isinstance(place := place_of(out), Path) or not place.suffix


def sink_for(work: Work, out: Path | str | None, overwrite: bool) -> Sink:
    """A file, a folder of parts, here or in a store, or nothing but memory."""
    from diffcern.run.journal import Journal
    from diffcern.run.parts import Parts

    if out is None:
        return OneTable(work.ids, None)
    if in_parts(out):
        if not work.alone or work.scores:
            raise UsageError("answers that belong together are one table: give --out FILE.parquet")
        digests, schema = work.digests, work.schema
        return Parts(out, work.settings, work.ids, overwrite=overwrite, digests=digests, schema=schema)
    out = Path(out)
    digest = work.digests(out, range(len(work.ids))) if work.digests else None
    journal = Journal(out, work.settings, overwrite=overwrite, digest=digest, schema=work.schema)
    if not work.alone:
        journal.restart()
    return OneTable(work.ids, journal)
