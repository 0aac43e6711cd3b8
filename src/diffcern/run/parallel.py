"""The units of a bench on several processes of one machine, each with one thread and its own models.

Small networks leave a second core idle; two processes use it fully, and a unit's records do not depend on who
made them.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import torch

from diffcern.run.bench import Bench
from diffcern.run.spec import Spec
from diffcern.run.store import RunFolder
from diffcern.run.units import Unit

_bench: Bench  # of this worker process
_folder: RunFolder


def _start(spec: Spec, out: Path) -> None:
    global _bench, _folder
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's: it lets running units finish
    torch.set_num_threads(1)
    _bench, _folder = Bench(spec, torch.device("cpu")), RunFolder(out)


def _work(unit: Unit) -> None:
    do_unit(_bench, _folder, unit)


def do_unit(bench: Bench, folder: RunFolder, unit: Unit) -> None:
    """Does one unit and writes its records, and beside them which of its images were skipped."""
    folder.write_unit(unit.name, bench.run(unit))


def run_units(spec: Spec, out: Path, work: Sequence[Unit], workers: int, finished: Callable[[Unit], None]) -> None:
    """Does the units of `work`; calls finished(unit) for each."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_start, initargs=(spec, out))
    try:
        futures = {pool.submit(_work, unit): unit for unit in work}
        for future in as_completed(futures):
            future.result()
            finished(futures[future])
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
