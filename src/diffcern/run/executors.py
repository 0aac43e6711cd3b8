"""Where pieces of work are done: in this process, or in several of this machine (`on_ray.py`: or of many).

Knows nothing about benches. What does the work is made once in each process, and answers come back to the one that
asked, which alone writes; a piece's answer must not depend on who made it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from threading import Thread
from typing import Any, Protocol, TypeVar

from diffcern.errors import DiffcernError

Piece = TypeVar("Piece")
Result = TypeVar("Result")
Make = Callable[[], Callable[[Piece], Result]]
Finished = Callable[[Piece, Result], None]
Lost = Callable[[Piece, str], None]


class Executor(Protocol):
    def map(
        self,
        make: Make[Piece, Result],
        pieces: Sequence[Piece],
        finished: Finished[Piece, Result],
        lost: Lost[Piece] | None = None,
    ) -> None:
        """finished(piece, make()(piece)) for every piece, as they end, in the process of the caller.

        lost(piece, why): of one that whatever does the work died of, where an executor can tell and go on.

        make: loads what the work needs; where it is called elsewhere, it travels there pickled. What any of them raises
        is raised here, after the pieces in work are done and handed back.
        """
        ...


class InProcess:
    """One piece after the other, in their order."""

    def map(
        self,
        make: Make[Piece, Result],
        pieces: Sequence[Piece],
        finished: Finished[Piece, Result],
        lost: Lost[Piece] | None = None,
    ) -> None:
        if not pieces:
            return
        work = make()
        for piece in pieces:
            finished(piece, work(piece))


@dataclass(frozen=True)
class Processes:
    """`workers` processes of one thread each: small networks leave a second core idle, and two processes do not."""

    workers: int

    def map(
        self,
        make: Make[Piece, Result],
        pieces: Sequence[Piece],
        finished: Finished[Piece, Result],
        lost: Lost[Piece] | None = None,
    ) -> None:
        if len(pieces) < 2:
            return InProcess().map(make, pieces, finished)
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(self.workers, context, initializer=_start, initargs=(make,))
        futures = {pool.submit(_do, piece): piece for piece in pieces}
        try:
            for future in as_completed(list(futures)):
                finished(futures.pop(future), future.result())
        except BrokenProcessPool as error:
            raise DiffcernError(
                "a worker process was killed, perhaps for want of memory; what was finished is kept: run again, with "
                "fewer --workers"
            ) from error
        finally:  # also at Ctrl-C: pieces in work are finished, and none of them is lost
            pool.shutdown(wait=True, cancel_futures=True)
            for future, piece in futures.items():
                if future.done() and not future.cancelled() and future.exception() is None:
                    finished(piece, future.result())


_work: Callable[[Any], Any]  # of this worker process


def _start(make: Make[Any, Any]) -> None:
    global _work
    Thread(target=_end_with_the_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's: it lets running pieces finish
    import torch

    torch.set_num_threads(1)
    _work = make()


def _end_with_the_parent() -> None:
    """A parent that was killed asks for nothing any more: without this its workers wait for pieces, and hold their
    models, for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _do(piece: Any) -> Any:
    return _work(piece)
