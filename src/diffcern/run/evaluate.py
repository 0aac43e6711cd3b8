"""Does the work of a bench and writes its records, so that a kill loses no more than the unit it hit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from diffcern.errors import UsageError
from diffcern.run.bench import Bench, Runner
from diffcern.run.executors import Executor, InProcess, Processes
from diffcern.run.pictures import examples, truths
from diffcern.run.spec import Spec, check_same
from diffcern.run.store import RunFolder, check_fingerprint
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
    bench = Bench(spec, device)
    entries = bench.entry_rows()
    fingerprint = bench.fingerprint()
    check_fingerprint(out, fingerprint)
    folder = RunFolder(out)
    folder.write_text("spec.toml", spec.to_toml())
    folder.write_json("fingerprint.json", fingerprint)
    folder.write_json("classes.json", list(bench.task.class_names))
    folder.write_json("entries.json", entries)
    plan = {"task": bench.task.name, "images": len(bench.order), "conditions": spec.shifts.cells}
    folder.write_json("plan.json", plan)
    if not (out / "examples.parquet").is_file():
        folder.write_table("examples.parquet", examples(bench))
    if bench.dense and not (out / "truths.parquet").is_file():
        folder.write_table("truths.parquet", truths(bench))
    work = units(spec, len(bench.order))
    todo = [unit for unit in work[shard[0] :: shard[1]] if not folder.done(unit.name, unit.stop - unit.start)]
    mine = len(work[shard[0] :: shard[1]])
    done = mine - len(todo)

    def finished(unit: Unit, result: Done) -> None:
        nonlocal done
        folder.write_unit(unit.name, result)
        done += 1
        if done < mine:
            progress(done, mine, todo[len(todo) - mine + done].title)

    executor = executor or (Processes(workers) if workers > 1 and len(todo) > 1 else InProcess())
    if todo:
        progress(done, mine, f"starting {workers} workers" if isinstance(executor, Processes) else todo[0].title)
        executor.map(Runner(spec, device, bench), todo, finished)
    progress(mine, mine, "done")
    return all(folder.done(unit.name, unit.stop - unit.start) for unit in work), folder.skipped()
