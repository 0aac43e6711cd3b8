"""Jobs whose results are rows: one for each image, example or question, into a table that grows as they come."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffcern.jobs.base import Events, Row, Silent, keeping
from diffcern.jobs.models import OnModels
from diffcern.jobs.spread import Spread, piecewise

if TYPE_CHECKING:
    import pyarrow as pa

    from diffcern.run.executors import Executor
    from diffcern.run.journal import Journal


@dataclass(frozen=True)
class Work:
    """A job with its models and data at hand.

    settings: what its rows depend on, fingerprints of the models too; rows made under others are not gone on with.
    ids: of all that it is about, in order. rows: makes those at the places that it is given; some make none. digest: of
    what a row answers about, by id. alone: whether a row depends on no other, so that those of an interrupted run are
    kept. evaluations: of the denoiser for a row, 0 where that is not known. schema: of the table. scores: what its rows
    come to, where the job alone does not know.
    """

    what: str
    settings: dict[str, Any]
    ids: Sequence[str]
    rows: Callable[[Sequence[int]], Iterator[Row]]
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


class RowsJob(OnModels, Spread):
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
        executor, work = self.executor(self.device, events), self.load(out, events)
        journal = None
        if out:
            journal = Journal(out, work.settings, overwrite=overwrite, digest=work.digest, schema=work.schema)
            if not work.alone:
                journal.restart()
        with self.threads():
            table = Table(collect(work, journal, events, Elsewhere(self, out), executor), out=out)
        if work.scores:
            return Table(table.rows, work.scores(table.good), out)
        return Table(table.rows, self.scores(table.good) if table.good else [], out)


def collect(
    work: Work,
    journal: Journal | None,
    events: Events,
    elsewhere: Elsewhere | None = None,
    executor: Executor | None = None,
) -> list[Row]:
    """All rows: those that the journal had, then the others as they come, into it; made here, or by an executor with
    what it loads `elsewhere`. Raises Interrupted at Ctrl-C."""
    rows: list[Row] = list(journal.rows) if journal else []
    done = {row["id"] for row in rows}
    todo = [place for place, id in enumerate(work.ids) if id not in done]

    def kept() -> str:
        return f"{len(rows)} rows are kept: run the same command to continue" if journal else "nothing is kept"

    with keeping(kept), events.rows(work.what, len(work.ids), len(rows), work.evaluations) as heard:

        def add(row: Row) -> None:
            if journal:
                journal.add(row)
            rows.append(row)
            heard(row)

        if executor and elsewhere and todo:
            piecewise(executor, elsewhere, todo, work.ids, add, work.alone)
        else:
            for row in work.rows(todo):
                add(row)
    if journal:
        journal.finish()
    return rows


@dataclass(frozen=True)
class Elsewhere:
    """Loads a job where its work is done, and makes the rows at the places that it is given there."""

    job: RowsJob
    out: Path | None

    def __call__(self) -> Callable[[Sequence[int]], list[Row]]:
        work = self.job.load(self.out, Silent())
        return lambda places: list(work.rows(places))
