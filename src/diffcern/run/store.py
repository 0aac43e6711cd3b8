"""The files of a run folder: every write is whole or not there at all."""

from __future__ import annotations

import io
import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from diffcern.configs import read_config
from diffcern.errors import DiffcernError
from diffcern.files import atomically, write_whole
from diffcern.run.opening import PICTURES, Opening
from diffcern.run.spec import Spec
from diffcern.run.units import Done
from diffcern.tables import CHECKSUM, check_records, checksum, read_table

RECORD_SCHEMA = pa.schema(
    [
        ("entry", pa.string()),
        ("method", pa.string()),
        ("dataset", pa.string()),
        ("shift", pa.string()),
        ("severity", pa.int32()),
        ("id", pa.string()),
        ("index", pa.int64()),
        ("target", pa.int64()),
        ("prediction", pa.int64()),
        ("probabilities", pa.list_(pa.float32())),
        ("nfe_forward", pa.int64()),
        ("nfe_backward", pa.int64()),
        ("loss_trace", pa.list_(pa.float32())),
        ("notes", pa.string()),  # JSON: named numbers
        ("statistics", pa.list_(pa.float64())),
    ]
)
TIMING_SCHEMA = pa.schema(
    [
        *(RECORD_SCHEMA.field(name) for name in ("entry", "shift", "severity", "id")),
        ("seconds", pa.float64()),
        ("peak_memory_mb", pa.float64()),
    ]
)
SKIPPED_SCHEMA = pa.schema(
    [
        *(RECORD_SCHEMA.field(name) for name in ("entry", "shift", "severity", "id")),
        ("reason", pa.string()),
    ]
)
PICTURE_SCHEMA = pa.schema(
    [
        *(RECORD_SCHEMA.field(name) for name in ("entry", "shift", "severity", "id")),
        ("png", pa.binary()),  # indices of classes with a palette, or millimetres in 16 bits
    ]
)
KEY = ["entry", "shift", "severity", "id"]
NEEDED = pa.schema(  # of records, whatever else a version writes
    [RECORD_SCHEMA.field(name) for name in (*KEY, "target", "prediction", "nfe_forward", "nfe_backward")]
)
SMALLEST = 1e-38  # of a probability that is kept as one of fp32
AGAIN = "delete it, and the same `diffcern bench` makes it again"
PARTS = {  # of a fingerprint, and what it means when one differs
    "predictor": "other weights or settings of the predictor",
    "prior": "other weights or settings of the prior",
    "images": "other images",
    "options": "other defaults of the methods' options",
}


class RunFolder:
    """Where a bench writes: spec.toml, fingerprint.json, plan.json, records/, timings/, skipped/ (images that could
    not be used), examples.parquet, entries.json and classes.json; of masks and depths also answers/ and truths.parquet,
    some pictures of both."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._done: set[str] = set()  # units that were looked at and are whole

    def begin(self, spec: Spec, opening: Opening, images: int) -> None:
        """Writes what there is to say before any record. images: how many there are.

        Raises DiffcernError where the folder cannot be written, or holds the records of other models, images or
        options, before anything is written.
        """
        check_fingerprint(self.path, opening.fingerprint)
        try:
            for name in ("records", "timings", "skipped"):
                (self.path / name).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):  # a name of its own: shards start at the same moment
                pass
        except OSError as error:
            raise DiffcernError(f"cannot write into {self.path}: {error.strerror}; give another --out") from error
        self.write_text("spec.toml", spec.to_toml())
        self.write_json("fingerprint.json", opening.fingerprint)
        self.write_json("classes.json", opening.classes)
        self.write_json("entries.json", opening.entries)
        self.write_json("plan.json", {"task": opening.task, "images": images, "conditions": spec.shifts.cells})
        for name, table in opening.pictures.items():
            self.write_table(f"{name}.parquet", table)

    @property
    def lacks(self) -> frozenset[str]:
        """The tables of pictures that it does not hold, of those that `begin` writes."""
        return frozenset(name for name in PICTURES if not (self.path / f"{name}.parquet").is_file())

    def _place(self, name: str) -> Path:
        """Of a file, in a folder that there is."""
        place = self.path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        return place

    def write_text(self, name: str, text: str) -> None:
        atomically(self._place(name), lambda partial: partial.write_text(text))

    def write_json(self, name: str, value: Any) -> None:
        self.write_text(name, json.dumps(value, indent=1) + "\n")

    def write_table(self, name: str, table: pa.Table) -> None:
        atomically(self._place(name), lambda partial: pq.write_table(table, partial))

    def skipped(self) -> dict[str, str]:
        """What all units of this run skipped, whoever did them: id -> reason. Raises DiffcernError."""
        files = sorted((self.path / "skipped").glob("*.parquet"))
        tables = [read_table(file, SKIPPED_SCHEMA, AGAIN) for file in files]
        return {row["id"]: row["reason"] for table in tables for row in table.to_pylist()}

    def done(self, unit: str, count: int) -> bool:
        """Whether that unit of work is there whole: a record, or a reason for having none, of each of its images.

        Files that are damaged, lack rows or were changed since they were written do not count: the unit is done again.
        """
        if unit not in self._done and self._whole(unit, count):
            self._done.add(unit)
        return unit in self._done

    def _whole(self, unit: str, count: int) -> bool:
        records, skipped = (self.path / part / f"{unit}.parquet" for part in ("records", "skipped"))
        if not records.is_file() or not (self.path / "timings" / records.name).is_file():  # its checksum is there
            return False
        try:
            check_records(records)
            rows = read_table(records, NEEDED, AGAIN).select(KEY).to_pylist()
            rows += read_table(skipped, SKIPPED_SCHEMA, AGAIN).select(KEY).to_pylist() if skipped.is_file() else []
        except DiffcernError:
            return False
        return len(rows) == count and len({tuple(row.values()) for row in rows}) == count

    def write_unit(self, unit: str, done: Done) -> None:
        """Records last: a unit counts as done when they are there, as the timings' checksum of them says."""
        if done.pictures:
            self._write("answers", unit, done.pictures, PICTURE_SCHEMA)
        (self.path / "skipped" / f"{unit}.parquet").unlink(missing_ok=True)  # of a unit that is done again
        if done.skipped:
            self._write("skipped", unit, done.skipped, SKIPPED_SCHEMA)
        rows = [{**asdict(record), "notes": json.dumps(record.notes, sort_keys=True)} for record in done.records]
        content = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, schema=RECORD_SCHEMA), content)
        timed = TIMING_SCHEMA.with_metadata({CHECKSUM: checksum(content.getvalue())})
        self._write("timings", unit, [asdict(timing) for timing in done.timings], timed)
        write_whole(self._place(f"records/{unit}.parquet"), content.getvalue())

    def _write(self, kind: str, unit: str, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> None:
        self.write_table(f"{kind}/{unit}.parquet", pa.Table.from_pylist(list(rows), schema=schema))


def check_fingerprint(path: Path, fingerprint: Mapping[str, str]) -> None:
    """Raises DiffcernError when the run folder `path` holds the records of other models, images or options, or does not
    say of which."""
    known = path / "fingerprint.json"
    if known.is_file():
        try:
            before: dict[str, str] = read_config(known, dict[str, str], "A bench writes it")
        except DiffcernError as error:
            raise DiffcernError(
                f"{error}, and without it nobody can tell whether the records are of these models: restore it, give "
                f"another --out, or delete {path} to start afresh"
            ) from error
        others = [what for part, what in PARTS.items() if before.get(part) != fingerprint.get(part)]
    else:
        others = ["a version that kept no fingerprints"] if any((path / "records").glob("*.parquet")) else []
    if others:
        raise DiffcernError(
            f"{path} was made with {' and '.join(others)}: give another --out, or delete the folder to start afresh"
        )


def answers_of(path: Path, entry: str) -> Iterator[dict[str, Any]]:
    """The records of an entry that have probabilities, with their logarithms. Raises DiffcernError for damaged ones."""
    wanted = pa.schema([RECORD_SCHEMA.field(name) for name in (*KEY, "target", "probabilities")])
    for file in sorted((path / "records").glob(f"{entry}--*.parquet")):
        check_records(file)
        for row in read_table(file, wanted, AGAIN).to_pylist():
            if row["entry"] == entry and row["probabilities"]:
                logs = [math.log(max(p, SMALLEST)) for p in row["probabilities"]]
                yield {"id": row["id"], "shift": row["shift"], "target": row["target"], "log_probabilities": logs}
