"""What jobs have in common whose work can be done elsewhere: by several processes, or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

from pydantic.dataclasses import dataclass

from diffcern.errors import DiffcernError, UsageError
from diffcern.fields import help_of
from diffcern.jobs.base import CHECKED, Events, Job, Row

if TYPE_CHECKING:
    from diffcern.run.executors import Executor, Make


PIECE = 32  # rows that are made elsewhere at a time: whole batches of `answer`, so that it asks in the same ones


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class Spread(Job):
    workers: Annotated[
        int | None, help_of("processes of one thread each (default: this one, with all), or actors of --ray", ge=1)
    ] = None
    ray: Annotated[str | None, help_of("do the work on a Ray cluster: local, auto or HOST:PORT")] = None
    cpus_per_worker: Annotated[float, help_of("of --ray, which are its threads", gt=0)] = 1.0
    gpus_per_worker: Annotated[float, help_of("of --ray, parts of one allowed", ge=0)] = 0.0

    @contextmanager
    def threads(self) -> Iterator[None]:
        """As many as a worker has, while this lasts, where workers are asked for, for what is done here: sums over
        several threads end in other last digits, and results are to be the same for any number of workers."""
        if self.workers is None and self.ray is None:
            yield
            return
        import torch

        from diffcern.run.on_ray import threads_of

        before = torch.get_num_threads()
        torch.set_num_threads(threads_of(self.cpus_per_worker))
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def executor(self, device: str, events: Events) -> Executor | None:
        """None where the work is done in this process. Raises UsageError for what does not fit together."""
        from diffcern.devices import device_named
        from diffcern.run.executors import Processes

        if self.ray is not None:
            from diffcern.run.on_ray import OnRay

            return OnRay(self.ray, self.workers, self.cpus_per_worker, self.gpus_per_worker, events.say)
        if (self.cpus_per_worker, self.gpus_per_worker) != (1.0, 0.0):
            raise UsageError("--cpus-per-worker and --gpus-per-worker are of --ray: give it too")
        if (self.workers or 1) == 1:
            return None
        if (found := device_named(device)).type != "cpu":
            raise UsageError(f"several workers share a CPU, not {found}: leave --workers at 1, or give --ray")
        return Processes(self.workers or 1)


def rest(
    executor: Executor | None,
    make: Make[Sequence[int], Sequence[Row]] | None,
    here: Callable[[Sequence[int]], Iterable[Row]],
    stretches: Sequence[Sequence[int]],
    ids: Sequence[str],
    add: Callable[[Row], None],
    alone: bool = True,
) -> None:
    """Hands on the rows of these stretches of places as they are made: here, or where there is an executor as
    `piecewise`."""
    if executor and make and any(stretches):
        piecewise(executor, make, stretches, ids, add, alone)
        return
    for places in stretches:
        for row in here(places):
            add(row)


def piecewise(
    executor: Executor,
    make: Make[Sequence[int], Sequence[Row]],
    stretches: Sequence[Sequence[int]],
    ids: Sequence[str],
    add: Callable[[Row], None],
    alone: bool = True,
) -> None:
    """Hands on the rows of these stretches of places as they are made elsewhere, by `make()(places)`. Of a piece that
    workers die of, those rows are set aside, with an error, that they die of again.

    alone: whether a row depends on no other; else all are one piece, and DiffcernError is raised where workers die."""
    spoilt: list[int] = []

    def finished(piece: Sequence[int], found: Sequence[Row]) -> None:
        for row in found:
            add(row)

    def lost(piece: Sequence[int], why: str) -> None:
        if not alone:
            raise DiffcernError(f"{why}, and one image depends on another here: run again")
        spoilt.extend(piece)

    pieces: list[Sequence[int]] = [places for places in stretches if places]
    if alone:  # the same ones whatever is left of the work
        pieces = [tuple(piece) for places in stretches for _, piece in groupby(places, lambda place: place // PIECE)]
    executor.map(make, pieces, finished, lost)
    one_by_one = [(place,) for place in spoilt]
    executor.map(make, one_by_one, finished, lambda piece, why: add({"id": ids[piece[0]], "error": why}))
