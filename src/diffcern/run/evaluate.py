"""Does the work of a bench and writes its records, so that a kill loses no more than the unit it hit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import reduce
from pathlib import Path
from typing import Any

import torch

from diffcern.data import Dataset
from diffcern.errors import DiffcernError
from diffcern.files import writing
from diffcern.run.bench import Runner, images_of, order_of
from diffcern.run.digests import Digests, of_images
from diffcern.run.executors import Executor, InProcess
from diffcern.run.opening import Open
from diffcern.run.spec import Spec, check_same
from diffcern.run.store import RunFolder
from diffcern.run.units import Done, Unit, independent, units


def evaluate(
    spec: Spec,
    out: Path,
    *,
    device: torch.device | str,
    shard: tuple[int, int] = (0, 1),
    executor: Executor | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> tuple[bool, dict[str, str]]:
    """Does what is left of a bench; returns whether all of it is now there, and what was skipped (id -> reason).

    shard: (i, n) does every n-th unit of work, from the i-th: n runs, also on n machines whose folders are merged
    afterwards, make the records of one. executor: what does the units, where that is not this process; device: by name
    where it is another machine's. progress(done, total, what) is called before the first unit and after each, what
    being one that is in work. Raises UsageError or DiffcernError before anything is written where the specification or
    a model cannot be used, or where the folder holds the records of others.
    """
    check_same(spec, out)
    images, folder = images_of(spec), RunFolder(out)
    work, order = units(spec, len(images)), order_of(len(images), spec.seed)
    mine = work[shard[0] :: shard[1]]
    todo = [unit for unit in mine if not folder.done(unit.name, unit.stop - unit.start)]
    left, digests = frozenset(todo), of_images(images, out / "images")
    ids = images.ids
    done, opened, early = len(mine) - len(todo), False, list[tuple[Unit, Done]]()

    def check(some: Iterable[Unit]) -> None:
        check_images(out, (ids[row] for unit in some for row in order[unit.start : unit.stop]), digests)

    def say() -> None:
        if done < len(mine):
            progress(done, len(mine), todo[len(todo) - len(mine) + done].title)

    def write(unit: Unit, result: Done) -> None:
        nonlocal done
        check([unit])
        folder.write_unit(unit.name, result)
        done += 1
        say()

    def finished(piece: Open | Unit, result: Any) -> None:
        nonlocal opened
        if isinstance(piece, Open):
            folder.begin(spec, result, len(images))
            check(unit for unit in mine if unit not in left)
            opened = True
            say()
            for unit, waiting in early:
                write(unit, waiting)
        elif opened:
            write(piece, result)
        else:  # of another worker, while the first one still opens
            early.append((piece, result))

    executor = executor or InProcess()
    pieces: list[Open | Unit] = [Open(folder.lacks), *todo]
    runner, spoilt = Runner(spec, device, images), list[Unit]()

    def lost(piece: Open | Unit, why: str) -> None:
        if isinstance(piece, Open) or not independent(spec.entries[piece.entry]):
            what = "loading the models" if isinstance(piece, Open) else piece.title
            raise DiffcernError(f"{what}: {why}; what was finished is kept: run again")
        spoilt.append(piece)

    with writing(out, "-{}-{}".format(*shard)):
        executor.map(runner, pieces, finished, lost)
        for unit in spoilt:
            write(unit, apart(unit, spec, images, runner, executor))
    progress(len(mine), len(mine), "done")
    return all(folder.done(unit.name, unit.stop - unit.start) for unit in work), folder.skipped()


def check_images(out: Path, ids: Iterable[str], digests: Digests) -> None:
    """Raises DiffcernError where an image is another than that of its name when its first records were written."""
    if others := [id for id in dict.fromkeys(ids) if digests.changed(id)]:
        raise DiffcernError(
            f"other images of the same names came to {out} ({', '.join(others[:3])}{', ...' if others[3:] else ''}): "
            "give another --out, or put the first ones back"
        )


def apart(unit: Unit, spec: Spec, images: Dataset, runner: Runner, executor: Executor) -> Done:
    """A unit that workers died of, image by image: those that they die of again are skipped, and say so."""
    found: dict[int, Done] = {}

    def lost(one: Unit, why: str) -> None:
        id = images.ids[order_of(len(images), spec.seed)[one.start]]
        row = {"entry": one.entry, "shift": one.shift, "severity": one.severity, "id": id, "reason": why}
        found[one.start] = Done([], [], [row])

    executor.map(runner, unit.images, lambda one, done: found.__setitem__(one.start, done), lost)
    return reduce(Done.__add__, (found[start] for start in sorted(found)))
