"""Reading a run folder into arrays; knows files and columns, nothing of what they mean."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from diffcern.errors import DiffcernError

# The order papers print (noise, blur, weather, digital; the extra four last); anything else follows by name.
SHIFT_ORDER = ["clean", "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "snow", "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression", "speckle_noise", "gaussian_blur", "spatter", "saturate"]

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
TIMINGS = pa.schema(
    [
        *(RECORDS.field(name) for name in KEY),
        ("seconds", pa.float64()),
        ("peak_memory_mb", pa.float64()),
    ]
)


@dataclass(frozen=True)
class Entry:
    """One configured method: a row of every table."""

    name: str
    method: str
    protocol: str | None = None
    batch_size: int | None = None
    needs_batch: bool = False
    description: str = ""


@dataclass(frozen=True)
class Cell:
    """What one entry answered on one shift and severity; arrays of one length, ordered by id.

    confidence is the largest class probability (NaN where none was recorded); seconds and memory hold only the
    samples that were timed.
    """

    dataset: str
    method: str
    ids: NDArray[Any]
    target: NDArray[Any]
    prediction: NDArray[Any]
    confidence: NDArray[Any]
    nfe_forward: NDArray[Any]
    nfe_backward: NDArray[Any]
    traces: list[list[float]]
    seconds: NDArray[Any]
    memory: NDArray[Any]


@dataclass(frozen=True)
class Run:
    """A run folder in memory: `cells[entry, shift, severity]`, entries in the order of the specification."""

    path: Path
    entries: list[Entry]
    classes: list[str]
    spec: str
    cells: dict[tuple[str, str, int], Cell]

    @property
    def conditions(self) -> list[tuple[str, int]]:
        """Every (shift, severity) that any entry answered, clean first."""
        return sorted({key[1:] for key in self.cells}, key=lambda c: (shift_rank(c[0]), c[1]))


def shift_rank(shift: str) -> tuple[int, str]:
    """Sort key of a shift's name."""
    return (SHIFT_ORDER.index(shift) if shift in SHIFT_ORDER else len(SHIFT_ORDER), shift)


def load(run_dir: str | Path) -> Run:
    """The run in `run_dir`.

    Raises DiffcernError when the folder or its records are missing, or when a file cannot be read.
    """
    path = Path(run_dir)
    if not path.is_dir():
        raise DiffcernError(f"no run folder {path}: `diffcern bench SPEC.toml --out {path}` makes one.")
    files = _files(path / "records")
    if not files:
        raise DiffcernError(
            f"no records in {path / 'records'} yet: `diffcern bench SPEC.toml --out {path}` writes them."
        )
    records = _unique(pa.concat_tables([_with_confidence(read_table(file, RECORDS)) for file in files]))
    timed = [read_table(file, TIMINGS) for file in _files(path / "timings")]
    timings = dict(_split(_unique(pa.concat_tables(timed)))) if timed else {}
    cells = {key: _cell(rows, timings.get(key)) for key, rows in _split(records)}
    if not cells:
        raise DiffcernError(f"the record files in {path / 'records'} hold no rows: run the benchmark again.")
    spec = path / "spec.toml"
    return Run(
        path=path,
        entries=_entries(path / "entries.json", cells),
        classes=[str(name) for name in _json(path / "classes.json")],
        spec=spec.read_text(encoding="utf-8") if spec.is_file() else "",
        cells=cells,
    )


def probabilities(
    run_dir: Path, wanted: Iterable[tuple[str, int, str]]
) -> dict[tuple[str, str, int, str], list[float]]:
    """Class probabilities by (entry, shift, severity, id) of the few wanted (shift, severity, id)."""
    wanted = set(wanted)
    ids = pa.array(sorted({key[2] for key in wanted}), pa.string())
    found = {}
    for file in _files(run_dir / "records"):
        table = read_table(file, pa.schema([*map(RECORDS.field, KEY), RECORDS.field("probabilities")]))
        for row in table.filter(pa.compute.is_in(table["id"], value_set=ids)).to_pylist():
            if (row["shift"], row["severity"], row["id"]) in wanted:
                found[tuple(row[name] for name in KEY)] = row["probabilities"] or []
    return found


def read_table(file: Path, schema: pa.Schema) -> pa.Table:
    """The columns of `schema` from one parquet file; DiffcernError naming the file when that fails."""
    try:
        return pq.read_table(file, columns=schema.names, partitioning=None).select(schema.names).cast(schema)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise DiffcernError(
            f"cannot read {file}: {error}. The file is truncated or not one of diffcern's; delete it and run the "
            "same `diffcern bench` command again, which computes only what is missing."
        ) from error


def _files(folder: Path) -> list[Path]:
    """Finished parquet files, sorted; a writer's temporary files carry a leading dot or underscore, or `.tmp`."""
    return sorted(f for f in folder.glob("*.parquet") if f.name[0] not in "._" and ".tmp" not in f.name)


def _with_confidence(table: pa.Table) -> pa.Table:
    """The table with its probabilities, by far the largest column, reduced to their maximum."""
    column = table["probabilities"].combine_chunks()
    lengths = pa.compute.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
    flat = column.flatten().to_numpy(zero_copy_only=False)
    confidence = np.full(len(lengths), np.nan)
    starts = np.cumsum(lengths) - lengths
    if len(flat):
        confidence[lengths > 0] = np.maximum.reduceat(flat, starts[lengths > 0])
    return table.drop_columns(["probabilities"]).append_column("confidence", pa.array(confidence))


def _unique(table: pa.Table) -> pa.Table:
    """Rows sorted by key, one for each: a run that was killed between two writes may hold a sample twice."""
    table = table.sort_by([(name, "ascending") for name in KEY])
    keys = list(zip(*(table[name].to_pylist() for name in KEY), strict=True))
    return table.filter(pa.array([i == 0 or key != keys[i - 1] for i, key in enumerate(keys)], pa.bool_()))


def _split(table: pa.Table) -> list[tuple[tuple[str, str, int], pa.Table]]:
    """(entry, shift, severity) and its rows, for a table sorted by key."""
    keys = list(zip(*(table[name].to_pylist() for name in KEY[:3]), strict=True))
    starts = [i for i, key in enumerate(keys) if i == 0 or key != keys[i - 1]]
    return [(keys[a], table.slice(a, b - a)) for a, b in zip(starts, [*starts[1:], len(keys)], strict=True)]


def _cell(rows: pa.Table, timing: pa.Table | None) -> Cell:
    def column(name: str) -> NDArray[Any]:
        return rows[name].to_numpy()

    def measured(name: str) -> NDArray[Any]:
        values = timing[name].to_numpy().astype(float) if timing is not None else np.empty(0)
        return values[np.isfinite(values)]

    return Cell(
        dataset=rows["dataset"][0].as_py(),
        method=rows["method"][0].as_py(),
        ids=column("id"),
        target=column("target"),
        prediction=column("prediction"),
        confidence=column("confidence"),
        nfe_forward=column("nfe_forward"),
        nfe_backward=column("nfe_backward"),
        traces=[trace or [] for trace in rows["loss_trace"].to_pylist()],
        seconds=measured("seconds"),
        memory=measured("peak_memory_mb"),
    )


def _entries(file: Path, cells: dict[tuple[str, str, int], Cell]) -> list[Entry]:
    """The entries that have records: described ones first, in their order, then any that only records know."""
    methods = {key[0]: cell.method for key, cell in cells.items()}
    described = [
        Entry(
            name=row["entry"],
            method=row.get("method") or methods[row["entry"]],
            protocol=row.get("protocol"),
            batch_size=row.get("batch_size"),
            needs_batch=bool(row.get("needs_batch", False)),
            description=row.get("description") or "",
        )
        for row in _json(file)
        if row["entry"] in methods
    ]
    known = {entry.name for entry in described}
    return described + [Entry(name, method) for name, method in methods.items() if name not in known]


def _json(file: Path) -> list[Any]:
    """The list in `file`, empty where there is none: what it describes is optional in a report."""
    if not file.is_file():
        return []
    try:
        return list(json.loads(file.read_text(encoding="utf-8")))
    except ValueError as error:
        raise DiffcernError(f"cannot read {file}: {error}. Run the benchmark again to rewrite it.") from error
