"""Jobs whose results are rows: one for each image, example or question, into a table that grows as they come."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffcern.jobs.base import Events, Job, Row, Silent, keeping

if TYPE_CHECKING:
    import pyarrow as pa

    from diffcern.run.journal import Journal


@dataclass(frozen=True)
class Work:
    """A job with its models and data at hand.

    settings: what its rows depend on, fingerprints of the models too; rows made under others are not gone on with.
    total: how many rows there will be. rows: makes those whose ids are not among the ones it is given. digest: of what
    a row answers about, by id. alone: whether a row depends on no other, so that those of an interrupted run are kept.
    evaluations: of the denoiser for a row, 0 where that is not known. schema: of the table. scores: what its rows come
    to, where the job alone does not know.
    """

    what: str
    settings: dict[str, Any]
    total: int
    rows: Callable[[set[str]], Iterator[Row]]
    digest: Callable[[str], str] | None = None
    alone: bool = True
    evaluations: int = 0
    schema: pa.Schema | None = None
    scores: Callable[[Sequence[Row]], list[Row]] | None = None


@dataclass(frozen=True)
class Table:
    """rows: those of what was skipped have an `error`. scores: what they come to, where a job has a measure.
    out: the file."""

    rows: list[Row]
    scores: list[Row] = field(default_factory=list)
    out: Path | None = None

    @property
    def good(self) -> list[Row]:
        return [row for row in self.rows if not row["error"]]

    @property
    def skipped(self) -> int:
        return len(self.rows) - len(self.good)


class RowsJob(Job):
    """Its `carry_out` is the same for all: `load`, then the rows that are left, each written as it comes."""

    lists: bool = False  # whether rows hold lists, for which CSV has no form

    @abstractmethod
    def load(self, out: Path | None, events: Events) -> Work:
        """out: where the table will be. Raises as `carry_out`."""

    @staticmethod
    def scores(rows: Sequence[Row]) -> list[Row]:
        """What rows that were not skipped come to."""
        return []

    def carry_out(self, out: Path | None, *, overwrite: bool = False, events: Events = Silent()) -> Table:
        from diffcern.run.journal import Journal, check_out

        if out:
            check_out(out, overwrite, lists=self.lists)
        work = self.load(out, events)
        journal = None
        if out:
            journal = Journal(out, work.settings, overwrite=overwrite, digest=work.digest, schema=work.schema)
            if not work.alone:
                journal.restart()
        table = Table(collect(work, journal, events), out=out)
        if work.scores:
            return Table(table.rows, work.scores(table.good), out)
        return Table(table.rows, self.scores(table.good) if table.good else [], out)


def collect(work: Work, journal: Journal | None, events: Events) -> list[Row]:
    """All rows: those that the journal had, then the others as they come, into it. Raises Interrupted at Ctrl-C."""
    rows: list[Row] = list(journal.rows) if journal else []

    def kept() -> str:
        return f"{len(rows)} rows are kept: run the same command to continue" if journal else "nothing is kept"

    with keeping(kept), events.rows(work.what, work.total, len(rows), work.evaluations) as heard:
        for row in work.rows({row["id"] for row in rows}):
            if journal:
                journal.add(row)
            rows.append(row)
            heard(row)
    if journal:
        journal.finish()
    return rows
