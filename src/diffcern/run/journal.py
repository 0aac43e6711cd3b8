"""Rows written as they come, so that an interrupted command goes on where it stopped; then one table."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from diffcern.errors import DiffcernError, UsageError
from diffcern.files import atomically, check_folder

SUFFIXES = (".parquet", ".csv", ".json")


def check_out(out: Path, overwrite: bool = False) -> None:
    """What can be said before any work about a result file. Raises UsageError for a suffix that is none of SUFFIXES,
    DiffcernError for a file that exists (unless overwrite) or a folder that cannot be written."""
    if out.suffix not in SUFFIXES:
        raise UsageError(f"--out names a file that ends in {', '.join(SUFFIXES)}, not {out.name!r}")
    if out.is_dir():
        raise DiffcernError(f"{out} is a folder: give another --out")
    if out.exists() and not overwrite:
        raise DiffcernError(f"{out} exists: give another --out, or --overwrite")
    check_folder(out.parent)


class Journal:
    """The rows of a result file on the way: `.NAME.partial.jsonl` beside it until `finish` writes NAME.

    settings must be the same for a journal to be continued; overwrite starts another one where they are not. The
    journal is locked (the system lets go of it whichever way the command ends). Raises what `check_out` does, and
    DiffcernError for other settings or a journal that another command is writing.
    """

    def __init__(self, out: Path, settings: dict[str, Any], *, overwrite: bool = False) -> None:
        check_out(out, overwrite)
        self.out = out
        self.path = out.with_name(f".{out.name}.partial.jsonl")
        self._header = json.dumps(settings, sort_keys=True, default=str)
        self.rows: list[dict[str, Any]] = []
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab+")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._read(overwrite)
        except BlockingIOError as error:
            raise DiffcernError(f"another command is writing {out}: wait for it, or give another --out") from error
        except OSError as error:
            raise DiffcernError(f"cannot write {out}: {error.strerror}; give another --out") from error

    def _read(self, overwrite: bool) -> None:
        """Takes the rows that are there; cuts off a torn last line."""
        self._file.seek(0)
        *lines, torn = self._file.read().split(b"\n")
        same = bool(lines) and lines[0].decode() == self._header
        if same:
            self.rows = [json.loads(line) for line in lines[1:]]
            self._file.truncate(self._file.tell() - len(torn))
        elif overwrite or not lines:
            self.restart()
        else:
            raise DiffcernError(
                f"{self.path} was begun with other settings: give --overwrite to start again, or another --out"
            )

    def restart(self) -> None:
        """Forgets the rows."""
        self.rows = []
        self._file.truncate(0)
        self._write(self._header)

    def _write(self, line: str) -> None:
        self._file.write(line.encode() + b"\n")
        self._file.flush()

    def add(self, row: dict[str, Any]) -> None:
        """One more row, handed to the system when this returns."""
        self._write(json.dumps(row))
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
        self.path.unlink(missing_ok=True)
        self._file.close()
