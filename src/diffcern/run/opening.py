"""The first piece of a bench's work: what its run folder says before any record, as only the models can tell it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from diffcern.run.bench import Bench
from diffcern.run.pictures import examples, truths

PICTURES = {"examples": examples, "truths": truths}  # tables of them


@dataclass(frozen=True)
class Opening:
    """entries: what the report needs to know of each. fingerprint: see `Bench.fingerprint`. pictures: tables by name,
    those that were asked for and that such a task has."""

    task: str
    classes: list[str]
    entries: list[dict[str, Any]]
    fingerprint: dict[str, str]
    pictures: dict[str, pa.Table]


@dataclass(frozen=True)
class Open:
    """Asks for it. pictures: names in `PICTURES`."""

    pictures: frozenset[str]

    def do(self, bench: Bench) -> Opening:
        entries, fingerprint = bench.entry_rows(), bench.fingerprint()
        made = {name: make(bench) for name, make in PICTURES.items() if name in self.pictures}
        tables = {name: table for name, table in made.items() if table is not None}
        return Opening(bench.task.name, list(bench.task.class_names), entries, fingerprint, tables)
