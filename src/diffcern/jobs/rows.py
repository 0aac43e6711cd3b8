"""Jobs whose results are rows: one for each image, example or question, into a table that grows as they come."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffcern.jobs.base import Events, Row, Silent, keeping
from diffcern.jobs.models import OnModels
from diffcern.jobs.sinks import Sink, in_parts, sink_for
from diffcern.jobs.spread import Spread, rest

if TYPE_CHECKING:
    import pyarrow as pa

    from diffcern.run.digests import Digests
    from diffcern.run.executors import Executor


@dataclass(frozen=True)
class Work:
    """A job with its models and data at hand.

    settings: what its rows depend on, fingerprints of the models too; rows made under others are not gone on with.
    ids: of all that it is about, in order. rows: makes those at the places that it is given; some make none.
    digests: of what the rows at some places answer about, by id; a result on the way keeps them beside it.
    alone: whether a row depends on no other, so that those of an interrupted run are kept. evaluations: of the denoiser
    for a row, 0 where that is not known. schema: of the table. scores: what its rows come to, where the job alone does
    not know.
    """

    what: str
    settings: dict[str, Any]
    ids: Sequence[str]
    rows: Callable[[Sequence[int]], Iterator[Row]]
    digests: Callable[[Path, Sequence[int]], Digests] | None = None
    alone: bool = True
    evaluations: int = 0
    schema: pa.Schema | None = None
    scores: Callable[[Sequence[Row]], list[Row]] | None = None


@dataclass(frozen=True)
class Table:
    """rows: those of what was skipped have an `error`; of a table in parts, they are read when they are asked for.
    scores: what they come to, where a job has a measure. out: the file, or the folder of parts or its address."""

    rows: Sequence[Row]
    scores: list[Row] = field(default_factory=list)
    out: Path | str | None = None

    @property
    def good(self) -> list[Row]:
        return [row for row in self.rows if not row["error"]]

    def first(self, limit: int) -> list[Row]:
        """Of the good ones."""
        return list(islice((row for row in self.rows if not row["error"]), limit))

    @property
    def skipped(self) -> int:
        known: int | None = getattr(self.rows, "skipped", None)
        return sum(bool(row["error"]) for row in self.rows) if known is None else known


class RowsJob(OnModels, Spread):
    """Its `carry_out` is the same for all: `load`, then the rows that are left, each written as it comes."""

    lists: bool = False  # whether rows hold lists, for which CSV has no form

    @abstractmethod
    def load(self, out: Path | str | None, events: Events) -> Work:
        """out: where the table will be. Raises as `carry_out`."""

    @staticmethod
    def scores(rows: Sequence[Row]) -> list[Row]:
        """What rows that were not skipped come to."""
        return []

    def carry_out(self, out: Path | str | None, *, overwrite: bool = False, events: Events = Silent()) -> Table:
        """out: a path, or as text the address of a folder in an object store. Otherwise as any job."""
        from diffcern.run.journal import check_out
        from diffcern.run.parts import check_parts

        if out and in_parts(out):
            check_parts(out)
        elif out:
            check_out(Path(out), overwrite, lists=self.lists)
        executor, work = self.executor(self.device, events), self.load(out, events)
        with self.threads():
            rows = collect(work, sink_for(work, out, overwrite), events, Elsewhere(self, out), executor)
        table = Table(rows, out=out)
        if work.scores:
            return Table(rows, work.scores(table.good), out)
        scored = type(self).scores is not RowsJob.scores and len(rows) > table.skipped
        return Table(rows, self.scores(table.good) if scored else [], out)


def collect(
    work: Work, sink: Sink, events: Events, elsewhere: Elsewhere | None = None, executor: Executor | None = None
) -> Sequence[Row]:
    """All rows: those that the sink had, then the others as they come, into it; made here, or by an executor with what
    it loads `elsewhere`. Raises Interrupted at Ctrl-C."""

    with (
        closing(sink),
        keeping(lambda: sink.kept),
        events.rows(work.what, len(work.ids), sink.done, work.evaluations) as heard,
    ):

        def add(row: Row) -> None:
            sink.add(row)
            heard(row)

        rest(executor, elsewhere, work.rows, sink.todo(), work.ids, add, work.alone)
        return sink.finish()


@dataclass(frozen=True)
class Elsewhere:
    """Loads a job where its work is done, and makes the rows at the places that it is given there."""

    job: RowsJob
    out: Path | str | None

    def __call__(self) -> Callable[[Sequence[int]], list[Row]]:
        work = self.job.load(self.out, Silent())
        return lambda places: list(work.rows(places))
