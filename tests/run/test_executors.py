"""Executors: every piece's answer comes back once, to the process that asked, and an error is raised there."""

import multiprocessing
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from diffcern.errors import DiffcernError
from diffcern.run import executors
from diffcern.run.executors import InProcess, Processes


@dataclass(frozen=True)
class Squares:
    """What does the work, and says where it was done; it travels pickled."""

    broken: int = -1

    def __call__(self):
        return self.work

    def work(self, piece):
        if piece == self.broken:
            raise ValueError(f"piece {piece} is broken")
        return piece**2, os.getpid(), torch.get_num_threads(), signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_in_process_goes_in_order():
    done = []
    InProcess().map(Squares(), [3, 1, 2], lambda piece, result: done.append((piece, result[0], result[1])))
    assert done == [(3, 9, os.getpid()), (1, 1, os.getpid()), (2, 4, os.getpid())]


def test_what_a_piece_raises_is_raised_after_those_before_it():
    done = []
    with pytest.raises(ValueError, match="piece 1 is broken"):
        InProcess().map(Squares(broken=1), [3, 1, 2], lambda piece, result: done.append(piece))
    assert done == [3]


@pytest.mark.slow
def test_workers_have_one_thread_and_leave_ctrl_c_to_the_parent():
    """Answers of whichever worker, each with its own piece; then what a broken one raises."""
    done = {}
    Processes(2).map(Squares(), [3, 1, 2, 5], done.__setitem__)
    assert {piece: result[0] for piece, result in done.items()} == {3: 9, 1: 1, 2: 4, 5: 25}
    assert all(result[1] != os.getpid() and result[2:] == (1, True) for result in done.values())
    with pytest.raises(ValueError, match="piece 1 is broken"):
        Processes(1).map(Squares(broken=1), [1, 2], done.__setitem__)


@dataclass(frozen=True)
class Slow:
    """Piece 0 breaks (or is killed) at once; the others take a while."""

    killed: bool = False

    def __call__(self):
        return self.work

    def work(self, piece):
        if piece == 0:
            if self.killed:
                os.kill(os.getpid(), signal.SIGKILL)
            raise ValueError("piece 0 is broken")
        assert sum(range(10_000_000))  # a third of a second of work
        return piece


@pytest.mark.slow
def test_what_was_in_work_when_another_piece_broke_is_handed_back():
    done = {}
    with pytest.raises(ValueError, match="piece 0 is broken"):
        Processes(2).map(Slow(), [1, 0, *range(2, 20)], done.__setitem__)
    assert done[1] == 1
    assert 19 not in done


def test_a_worker_that_was_killed_is_said_so():
    with pytest.raises(DiffcernError, match=r"a worker process was killed.*with fewer --workers"):
        Processes(1).map(Slow(killed=True), [0, 1], lambda piece, result: None)


@dataclass(frozen=True)
class Telling:
    """Each piece leaves its worker's number in a folder, and the next one takes for ever."""

    folder: str

    def __call__(self):
        return self.work

    def work(self, piece):
        Path(self.folder, str(os.getpid())).touch()
        time.sleep(600)


@pytest.mark.slow
def test_workers_end_with_a_parent_that_was_killed(tmp_path):
    """They waited for pieces for ever, each with a gigabyte of models."""
    parent = multiprocessing.get_context("spawn").Process(
        target=Processes(2).map, args=(Telling(str(tmp_path)), [0, 1], print)
    )
    parent.start()
    until(lambda: len(list(tmp_path.iterdir())) == 2)
    parent.kill()
    until(lambda: not any(Path("/proc", worker.name).exists() for worker in tmp_path.iterdir()))


def until(reached, seconds=30.0):
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_there_are_as_many_workers_as_asked_for(monkeypatch):
    """And not one for each CPU; when one fails, those in work are waited for, and those that are not are left."""
    asked, ended = [], []

    class Pool(ThreadPoolExecutor):
        def __init__(self, workers, context, **start):
            asked.append((workers, context.get_start_method()))
            super().__init__(workers, **start)

        def shutdown(self, wait=False, *, cancel_futures=False):
            ended.append((wait, cancel_futures))
            super().shutdown(wait, cancel_futures=cancel_futures)

    monkeypatch.setattr(executors, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(executors, "_work", None, raising=False)
    monkeypatch.setattr(executors, "_start", lambda make: setattr(executors, "_work", make()))
    done = {}
    Processes(3).map(Squares(), [1, 2], done.__setitem__)
    assert asked == [(3, "spawn")]
    assert ended == [(True, True)]
    assert {piece: result[0] for piece, result in done.items()} == {1: 1, 2: 4}


def test_nothing_is_loaded_for_nothing():
    def make():
        raise AssertionError("loaded")

    for executor in (InProcess(), Processes(2)):
        executor.map(make, [], lambda piece, result: None)
