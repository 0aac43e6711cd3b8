"""Parquet files of a run folder as tables and arrays; knows their columns, nothing of what they mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from diffcern import tables
from diffcern.errors import DiffcernError

KEY = ("entry", "shift", "severity", "id")
RECORDS = pa.schema(
    [
        ("entry", pa.string()),
        ("method", pa.string()),
        ("dataset", pa.string()),
        ("shift", pa.string()),
        ("severity", pa.int64()),
        ("id", pa.string()),
        ("target", pa.int64()),
        ("prediction", pa.int64()),
        ("probabilities", pa.list_(pa.float64())),
        ("nfe_forward", pa.float64()),
        ("nfe_backward", pa.float64()),
        ("loss_trace", pa.list_(pa.float64())),
    ]
)
OPTIONAL = ("probabilities", "loss_trace", "statistics", "clean", "seconds", "peak_memory_mb")
AGAIN = "delete it and run the same `diffcern bench` command again, which computes only what is missing"
STATISTICS = pa.field("statistics", pa.list_(pa.float64()))  # of tasks with an answer at every pixel; newer than others
TIMINGS = pa.schema(
    [
        *(RECORDS.field(name) for name in KEY),
        ("seconds", pa.float64()),
        ("peak_memory_mb", pa.float64()),
    ]
)

SKIPPED = pa.schema([*(RECORDS.field(name) for name in KEY), ("reason", pa.string())])


def parquet_files(folder: Path) -> list[Path]:
    """Finished parquet files, sorted; a leading dot or underscore or `.tmp` marks a writer's draft."""
    return sorted(f for f in folder.glob("*.parquet") if f.name[0] not in "._" and ".tmp" not in f.name)


def probabilities(
    run_dir: Path, wanted: Iterable[tuple[str, int, str]]
) -> dict[tuple[str, str, int, str], list[float]]:
    """Class probabilities by (entry, shift, severity, id) of the few wanted (shift, severity, id)."""
    wanted = set(wanted)
    ids = pa.array(sorted({key[2] for key in wanted}), pa.string())
    found = {}
    for file in parquet_files(run_dir / "records"):
        table = read_table(file, pa.schema([*map(RECORDS.field, KEY), RECORDS.field("probabilities")]))
        for row in table.filter(pa.compute.is_in(table["id"], value_set=ids)).to_pylist():
            if (row["shift"], row["severity"], row["id"]) in wanted:
                found[tuple(row[name] for name in KEY)] = row["probabilities"] or []
    return found


def read_table(file: Path, schema: pa.Schema) -> pa.Table:
    """The columns of `schema` from one file; raises as `tables.read_table`."""
    return tables.read_table(file, schema, AGAIN, OPTIONAL)


def unique(table: pa.Table, answers: Sequence[str] = ()) -> pa.Table:
    """Rows sorted by key, one for each: a run that was killed between two writes may hold a sample twice.

    answers: columns which such rows must agree in. Raises DiffcernError where they do not.
    """
    table = table.sort_by([(name, "ascending") for name in KEY])
    new = _changes(table, KEY)
    if odd := np.flatnonzero(_changes(table, (*KEY, *answers)) & ~new).tolist():
        row = table.slice(odd[0], 1).to_pylist()[0]
        where = ", ".join(str(row[name]) for name in KEY)
        raise DiffcernError(f"the records answer {where} twice, and differently: a file was copied or changed; {AGAIN}")
    return table.filter(pa.array(new))


def split(table: pa.Table) -> list[tuple[tuple[str, str, int], pa.Table]]:
    """(entry, shift, severity) and its rows, for a table sorted by key."""
    bounds = [*np.flatnonzero(_changes(table, KEY[:3])).tolist(), len(table)]
    parts = [table.slice(a, b - a) for a, b in pairwise(bounds)]
    return [((first(part, "entry"), first(part, "shift"), first(part, "severity")), part) for part in parts]


def by_cell(folder: Path, schema: pa.Schema) -> dict[tuple[str, str, int], pa.Table]:
    """All rows of a folder's files by (entry, shift, severity)."""
    found = [read_table(file, schema) for file in parquet_files(folder)]
    return dict(split(unique(pa.concat_tables(found)))) if found else {}


def _changes(table: pa.Table, columns: Iterable[str]) -> NDArray[Any]:
    """Where a row differs from the one before it in any of the columns; true for the first row."""
    n = len(table)
    change = np.ones(n, dtype=bool)
    if n > 1:
        pairs = [(table[name].slice(1), table[name].slice(0, n - 1)) for name in columns]
        change[1:] = np.any([pa.compute.not_equal(*pair).to_numpy() for pair in pairs], axis=0)
    return change


def first(table: pa.Table, column: str) -> Any:
    return table[column][0].as_py()


def with_confidence(table: pa.Table) -> pa.Table:
    """The table with its probabilities, by far the largest column, reduced to their maximum."""
    lengths, flat = _ragged(table["probabilities"])
    confidence = np.full(len(lengths), np.nan)
    starts = np.cumsum(lengths) - lengths
    if len(flat):
        confidence[lengths > 0] = np.maximum.reduceat(flat, starts[lengths > 0])
    return table.drop_columns(["probabilities"]).append_column("confidence", pa.array(confidence))


def padded(column: pa.ChunkedArray) -> NDArray[Any]:
    """Lists as rows of one array, NaN past the end of each."""
    lengths, flat = _ragged(column)
    rows = np.full((len(lengths), max(lengths, default=0)), np.nan)
    rows[np.arange(rows.shape[1]) < lengths[:, None]] = flat
    return rows


def _ragged(column: pa.ChunkedArray) -> tuple[NDArray[Any], NDArray[Any]]:
    """The length of each list (0 for null) and all values in order."""
    lengths = pa.compute.list_value_length(column).fill_null(0).to_numpy()
    return lengths, pa.compute.list_flatten(column).to_numpy()
