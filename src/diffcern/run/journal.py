"""Rows written as they come, so that an interrupted command goes on where it stopped; then one table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from diffcern.errors import DiffcernError, UsageError
from diffcern.run.store import atomically

SUFFIXES = (".parquet", ".csv", ".json")


class Journal:
    """The rows of a result file on the way: `.NAME.partial.jsonl` beside it until `finish` writes NAME.

    settings must be the same for a journal to be continued. Raises UsageError for a suffix that is none of
    SUFFIXES, DiffcernError for a file that exists, a folder that cannot be written or other settings.
    """

    def __init__(self, out: Path, settings: dict[str, Any], *, overwrite: bool = False) -> None:
        if out.suffix not in SUFFIXES:
            raise UsageError(f"--out names a file that ends in {', '.join(SUFFIXES)}, not {out.name!r}")
        if out.exists() and not overwrite:
            raise DiffcernError(f"{out} exists: give another --out, or --overwrite")
        self.out = out
        self.path = out.with_name(f".{out.name}.partial.jsonl")
        header = json.dumps(settings, sort_keys=True, default=str)
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            lines = self.path.read_bytes().split(b"\n")[:-1] if self.path.exists() else []  # a torn last line is lost
            if lines and lines[0].decode() != header:
                raise DiffcernError(f"{self.path} was begun with other settings: delete it, or give another --out")
            self.rows: list[dict[str, Any]] = [json.loads(line) for line in lines[1:]]
            self._header = header
            self._rewrite()
        except OSError as error:
            raise DiffcernError(f"cannot write {out}: {error.strerror}; give another --out") from error

    def _rewrite(self) -> None:
        """Puts header and rows into the file, whole or not at all, and opens it for more."""
        lines = [self._header, *(json.dumps(row) for row in self.rows)]
        atomically(self.path, lambda partial: partial.write_text("".join(line + "\n" for line in lines)))
        self._file = self.path.open("a")

    def restart(self) -> None:
        """Forgets the rows."""
        self.rows = []
        self._file.close()
        self._rewrite()

    def add(self, row: dict[str, Any]) -> None:
        """One more row, handed to the system when this returns."""
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        self.rows.append(row)

    def finish(self) -> None:
        """Writes the table whole, in the order of ids, and removes the journal."""
        rows = sorted(self.rows, key=lambda row: row["id"])
        names = dict.fromkeys(name for row in rows for name in row)  # an unreadable image has but two of them
        columns = {name: pa.array([row.get(name) for row in rows]) for name in names}
        table = pa.table({n: c.cast(pa.string()) if c.type == pa.null() else c for n, c in columns.items()})
        if self.out.suffix == ".parquet":
            atomically(self.out, lambda partial: pq.write_table(table, partial))
        elif self.out.suffix == ".csv":
            atomically(self.out, lambda partial: pyarrow.csv.write_csv(table, partial))
        else:
            atomically(self.out, lambda partial: partial.write_text(json.dumps(rows, indent=1) + "\n"))
        self._file.close()
        self.path.unlink()
