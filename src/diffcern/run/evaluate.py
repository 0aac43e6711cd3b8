"""Does the work of a bench and writes its records, so that a kill loses no more than the unit it hit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from diffcern.errors import UsageError
from diffcern.run.bench import Runner, images_of
from diffcern.run.executors import Executor, InProcess, Processes
from diffcern.run.opening import Open
from diffcern.run.spec import Spec, check_same
from diffcern.run.store import RunFolder
from diffcern.run.units import Done, Unit, units


def evaluate(
    spec: Spec,
    out: Path,
    *,
    device: torch.device,
    shard: tuple[int, int] = (0, 1),
    workers: int = 1,
    executor: Executor | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> tuple[bool, dict[str, str]]:
    """Does what is left of a bench; returns whether all of it is now there, and what was skipped (id -> reason).

    shard: (i, n) does every n-th unit of work, from the i-th: n runs, also on n machines whose folders are merged
    afterwards, make the records of one. workers: processes of one thread each, on the CPU; executor: what else
    does the units. progress(done, total, what) is called before the first unit and after each, what being one that is
    in work. Raises UsageError or DiffcernError before anything is written where the specification or a model cannot be
    used, or where the folder holds the records of others.
    """
    if workers > 1 and device.type != "cpu":
        raise UsageError(f"several workers share a CPU, not {device}: leave --workers at 1")
    check_same(spec, out)
    images, folder = images_of(spec), RunFolder(out)
    work = units(spec, len(images))
    mine = work[shard[0] :: shard[1]]
    todo = [unit for unit in mine if not folder.done(unit.name, unit.stop - unit.start)]
    done, opened, early = len(mine) - len(todo), False, list[tuple[Unit, Done]]()

    def say() -> None:
        if done < len(mine):
            progress(done, len(mine), todo[len(todo) - len(mine) + done].title)

    def write(unit: Unit, result: Done) -> None:
        nonlocal done
        folder.write_unit(unit.name, result)
        done += 1
        say()

    def finished(piece: Open | Unit, result: Any) -> None:
        nonlocal opened
        if isinstance(piece, Open):
            folder.begin(spec, result, len(images))
            opened = True
            say()
            for unit, waiting in early:
                write(unit, waiting)
        elif opened:
            write(piece, result)
        else:  # of another worker, while the first one still opens
            early.append((piece, result))

    executor = executor or (Processes(workers) if workers > 1 and len(todo) > 1 else InProcess())
    pieces: list[Open | Unit] = [Open(folder.lacks), *todo]
    executor.map(Runner(spec, device, images), pieces, finished)
    progress(len(mine), len(mine), "done")
    return all(folder.done(unit.name, unit.stop - unit.start) for unit in work), folder.skipped()
