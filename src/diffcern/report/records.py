"""Reads a run folder: its entries, classes, specification and, cell by cell, the answers.

Every planned cell is there: one that was not reached has no answers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from diffcern.configs import Name, read_config
from diffcern.errors import DiffcernError
from diffcern.kinds import KINDS, Kind
from diffcern.report.columns import (
    AGAIN,
    RECORDS,
    SKIPPED,
    STATISTICS,
    TIMINGS,
    by_cell,
    first,
    padded,
    parquet_files,
    read_table,
    split,
    unique,
    with_confidence,
)
from diffcern.report.run import Cell, ReportedEntry, Run
from diffcern.tables import check_records
from diffcern.texts import read_text

REWRITE = "Run the benchmark again to rewrite it"


class Plan(BaseModel):
    """What `plan.json` says. images: in each cell; None where it does not say. conditions: (shift, severity)."""

    task: str | None = None  # older plans are of classes
    images: Annotated[int, Field(ge=1)] | None = None
    conditions: tuple[tuple[str, Annotated[int, Field(ge=0)]], ...] = ()


class EntryRow(BaseModel):
    """What a row of `entries.json` says."""

    entry: Name
    method: Name | None = None
    protocol: Name | None = None
    batch_size: Annotated[int, Field(ge=1)] | None = None
    needs_batch: bool = False
    description: str | None = None


def load(run_dir: str | Path) -> Run:
    """The run in `run_dir`.

    Raises DiffcernError when the folder or its records are missing, or when a file cannot be read.
    """
    path = Path(run_dir)
    if not path.is_dir():
        raise DiffcernError(f"no run folder {path}: `diffcern bench SPEC.toml --out {path}` makes one.")
    files = parquet_files(path / "records")
    if not files and (path / "demo.json").is_file():
        named = ", ".join(sorted(file.name for file in path.glob("*.parquet")))
        raise DiffcernError(f"{path} is of a demo that answers in tables ({named}), not of a bench: open these.")
    if not files:
        raise DiffcernError(
            f"no records in {path / 'records'} yet: `diffcern bench SPEC.toml --out {path}` writes them."
        )
    plan: Plan = _described(path / "plan.json", Plan, Plan())
    task = plan.task or "classification"
    if task not in KINDS:
        raise DiffcernError(f"{path / 'plan.json'} is of the task {task!r}, which this version does not know.")
    columns = RECORDS if not KINDS[task].dense else RECORDS.append(STATISTICS)
    for file in files:
        check_records(file)
    tables = [with_confidence(_checked(read_table(file, columns), file, KINDS[task])) for file in files]
    if plan.task is None and any(map(_of_maps, files)):
        raise DiffcernError(f"{path / 'plan.json'} does not say the task, and the records are of maps. {REWRITE}")
    records = unique(pa.concat_tables(tables), ("method", "dataset", "target", "prediction"))
    if not len(records):
        raise DiffcernError(f"the record files in {path / 'records'} hold no rows: run the benchmark again.")
    answers = dict(split(records))
    timings, skipped = by_cell(path / "timings", TIMINGS), by_cell(path / "skipped", SKIPPED)
    entries = _entries(path / "entries.json", {key[0]: first(rows, "method") for key, rows in answers.items()})
    spec = path / "spec.toml"
    conditions = {key[1:] for key in answers} | set(plan.conditions)
    keys = [(entry.name, *condition) for entry in entries for condition in sorted(conditions)]
    none = records.slice(0, 0)
    return Run(
        path=path,
        dataset=first(records, "dataset"),
        task=task,
        images=plan.images,
        entries=entries,
        classes=list(_described(path / "classes.json", tuple[str, ...], ())),
        spec=read_text(spec) if spec.is_file() else "",
        cells={key: _cell(answers.get(key, none), timings.get(key), skipped.get(key)) for key in keys},
    )


def _of_maps(file: Path) -> bool:
    """Whether records have statistics, which those of classes have not."""
    if "statistics" not in pq.read_schema(file).names:
        return False
    table = read_table(file, pa.schema([STATISTICS]))
    return bool(pa.compute.any(pa.compute.greater(pa.compute.list_value_length(table["statistics"]), 0)).as_py())


def _checked(table: pa.Table, file: Path, kind: Kind) -> pa.Table:
    """The table. Raises DiffcernError for answers that no bench gives: classes that there are none of, statistics that
    are not the task's."""
    target, prediction = table["target"].to_numpy(), table["prediction"].to_numpy()
    classes = pa.compute.list_value_length(table["probabilities"]).fill_null(0).to_numpy()
    beyond = (classes > 0) & ((prediction < 0) | (np.maximum(target, prediction) >= classes))
    odd = (
        beyond.any()
        or min(target.min(initial=0), prediction.min(initial=0)) < -1
        or (table["severity"].to_numpy() < 0).any()
    )
    if kind.dense:
        lengths = set(pa.compute.list_value_length(table["statistics"]).fill_null(0).to_numpy().tolist()) - {0}
        odd |= len(lengths) > 1 or any(
            length % kind.statistics or not (kind.classes or length == kind.statistics) for length in lengths
        )
    if odd:
        raise DiffcernError(f"{file} holds answers that no bench gives: it was changed; {AGAIN}")
    return table


def _cell(rows: pa.Table, timing: pa.Table | None, skipped: pa.Table | None) -> Cell:
    def column(name: str) -> NDArray[Any]:
        return rows[name].to_numpy()

    def measured(name: str) -> NDArray[Any]:
        values = timing[name].to_numpy().astype(float) if timing is not None else np.empty(0)
        return values[np.isfinite(values)]

    return Cell(
        ids=column("id"),
        target=column("target"),
        prediction=column("prediction"),
        confidence=column("confidence"),
        statistics=_statistics(rows),
        nfe_forward=column("nfe_forward"),
        nfe_backward=column("nfe_backward"),
        traces=padded(rows["loss_trace"]),
        seconds=measured("seconds"),
        memory=measured("peak_memory_mb"),
        skipped={row["id"]: row["reason"] for row in skipped.to_pylist()} if skipped is not None else {},
    )


def _statistics(rows: pa.Table) -> NDArray[Any]:
    if "statistics" in rows.column_names:
        values = padded(rows["statistics"])
        return np.where(np.isfinite(values).all(axis=1, keepdims=True), values, np.nan)
    target, right = rows["target"].to_numpy(), rows["prediction"].to_numpy() == rows["target"].to_numpy()
    return np.where(target[:, None] >= 0, np.stack([right, np.ones(len(target))], 1), np.nan)


def _entries(file: Path, methods: dict[str, str]) -> list[ReportedEntry]:
    """Described entries first, in their order, then any others that have records."""
    rows: tuple[EntryRow, ...] = _described(file, tuple[EntryRow, ...], ())
    described = [
        ReportedEntry(
            name=row.entry,
            method=row.method or methods.get(row.entry, ""),
            protocol=row.protocol,
            batch_size=row.batch_size,
            needs_batch=row.needs_batch,
            description=row.description or "",
        )
        for row in rows
    ]
    known = {entry.name for entry in described}
    if len(known) < len(described):
        raise DiffcernError(f"{file} describes an entry twice. Run the benchmark again to rewrite it.")
    return described + [ReportedEntry(name, method) for name, method in methods.items() if name not in known]


def _described(file: Path, kind: Any, default: Any) -> Any:
    """What is in `file`, the default where there is none: what it describes is optional in a report."""
    return read_config(file, kind, REWRITE) if file.is_file() else default
