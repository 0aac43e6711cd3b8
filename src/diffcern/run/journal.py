"""Rows written as they come, so that an interrupted command goes on where it stopped; then one table."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from diffcern.claims import changed, listed
from diffcern.data.places import read_file
from diffcern.errors import DiffcernError, UsageError
from diffcern.files import atomically, check_folder, lock, reading
from diffcern.run.digests import beside

SUFFIXES = (".parquet", ".csv", ".json")
Write = Callable[[list[dict[str, Any]], Path], None]
CHECKSUM = "checksum"  # the key that the line of a row ends with, and the row does not have


def check_out(out: Path, overwrite: bool = False, *, lists: bool = False) -> None:
    """What can be said before any work about a result file. Raises UsageError for a suffix that is none of SUFFIXES,
    and where rows hold lists for one that cannot; DiffcernError for a file that exists (unless overwrite) or a folder
    that cannot be written."""
    if lists and out.suffix == ".csv":
        raise UsageError("a row holds lists, for which CSV has no form: give --out FILE.parquet or .json")
    if out.suffix not in SUFFIXES:
        suffixes = ", ".join(SUFFIXES)
        raise UsageError(f"--out ends in {suffixes}, not {out.suffix}: {out.name!r}; a folder of parts has no dot")
    if out.is_dir():
        raise DiffcernError(f"{out} is a folder: give another --out")
    if out.exists() and not overwrite:
        raise DiffcernError(f"{out} exists: give another --out, or --overwrite")
    check_folder(out.parent)


def begun(out: Path) -> bool:
    """Whether a command has begun a result file, or ended it: what lies beside it is that command's."""
    return out.exists() or _partial(out).exists()


def _partial(out: Path) -> Path:
    return out.with_name(f".{out.name}.partial.jsonl")


class Journal:
    """The rows of a result file on the way: `.NAME.partial.jsonl` beside it until `finish` writes NAME.

    settings must be the same for a journal to be continued; overwrite starts another one where they are not, and makes
    damaged rows again. Each line of a row ends with a checksum; rows of older journals have none. The journal is locked
    (the system lets go of it whichever way the command ends). Raises what `check_out` does, and DiffcernError for other
    settings, a line that is not what was written (a last one that was torn is left out) or a journal that another
    command is writing.

    digest: of what a row answers about, by id; where that has changed since, the row is no answer any more. schema: of
    the table, whatever the rows; columns that it does not name are taken as they are. write: rows into a file that is
    no table.
    """

    def __init__(
        self,
        out: Path,
        settings: dict[str, Any],
        *,
        overwrite: bool = False,
        digest: Callable[[str], str] | None = None,
        schema: pa.Schema | None = None,
        write: Write | None = None,
    ) -> None:
        if not write:
            check_out(out, overwrite)
        self.out = out
        self.path = _partial(out)
        self._header = json.dumps(settings, sort_keys=True, default=str)
        self.rows: list[dict[str, Any]] = []
        self._older = 0
        self._digest = digest or (lambda id_: "")
        self._schema = schema or pa.schema([])
        self._write_rows = write
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab+")
        except OSError as error:
            raise DiffcernError(f"cannot write {out}: {error.strerror}; give another --out") from error
        try:
            lock(self._file)
            self._read(overwrite)
        except DiffcernError:
            self._file.close()
            raise
        except BlockingIOError as error:
            self._file.close()
            raise DiffcernError(f"another command is writing {out}: wait for it, or give another --out") from error
        except OSError as error:
            self._file.close()
            raise DiffcernError(f"cannot write {out}: {error.strerror}; give another --out") from error

    def _read(self, overwrite: bool) -> None:
        """Takes the rows that are there; cuts off a torn last line."""
        self._file.seek(0)
        *lines, torn = self._file.read().split(b"\n")
        if not lines:
            self.restart()
        elif lines[0] == self._header.encode():
            self._file.truncate(self._file.tell() - len(torn))
            self._take(lines[1:], overwrite)
        elif overwrite:
            self.restart()
        else:
            other = listed(changed(_object(lines[0]), _object(self._header.encode())))
            begun = f"was begun with other settings ({other})" if _object(lines[0]) else "is damaged in line 1"
            raise DiffcernError(f"{self.path} {begun}: give --overwrite to start again, or another --out")

    def _take(self, lines: list[bytes], overwrite: bool) -> None:
        """The rows of these lines. Where some are damaged they are left out, if that is wanted, and else an error."""
        damaged: dict[int, str] = {}
        kept: dict[str, dict[str, Any]] = {}
        rows = {number: _object(line) for number, line in enumerate(lines, start=2)}
        known = {number: row.pop(CHECKSUM, None) for number, row in rows.items()}
        sums = {number: text for number, text in known.items() if isinstance(text, str)}
        told = Counter(map(_older, sums.values())).most_common(1)
        self._older = told[0][0] if told else len(rows)
        for number, row in rows.items():
            id_ = row.get("id")
            unsummed = known[number] is None and number < min(sums, default=number + 1) and number - 2 < self._older
            odd = known[number] is None and "error" not in row  # which the rows of every command have
            if odd or not isinstance(id_, str) or not isinstance(row.get("error"), str | None):
                damaged[number] = "is no row of a result"
            elif not unsummed and known[number] not in (self._checksum(row), self._checksum(row, "")):
                damaged[number] = "was changed since it was written (its checksum differs)"
                damaged[number] += ", or its image was" if self._digest(id_) else ""
            elif id_ in kept:
                damaged[number] = f"answers {id_!r} a second time"
            else:
                kept[id_] = row
        if damaged and not overwrite:
            number, why = next(iter(damaged.items()))
            raise DiffcernError(
                f"{self.path}, line {number} {why}{f', and {len(damaged) - 1} more' if len(damaged) > 1 else ''}: give "
                f"--overwrite to make it again and keep the other {len(kept)} rows, or another --out"
            )
        self.rows = list(kept.values())
        if damaged:
            self.restart()
            for row in kept.values():
                self.add(row)

    def _checksum(self, row: dict[str, Any], digest: str | None = None) -> str:
        """Over the row, what it answers about (older versions: nothing) and the settings: a row of another journal has
        another. Before it stands how many rows an older version left without one: a line that has lost its checksum is
        none of them."""
        about = self._digest(row["id"]) if digest is None else digest
        text = "\n".join(filter(None, (str(self._older), self._header, json.dumps(row), about)))
        return f"{self._older}-{hashlib.blake2b(text.encode(), digest_size=6).hexdigest()}"

    def restart(self) -> None:
        """Forgets the rows."""
        self.rows, self._older = [], 0
        self._file.truncate(0)
        self._write(self._header)

    def _write(self, line: str) -> None:
        self._file.write(line.encode() + b"\n")
        self._file.flush()

    def add(self, row: dict[str, Any]) -> None:
        """One more row, handed to the system when this returns."""
        self._write(json.dumps({**row, CHECKSUM: self._checksum(row)}))
        self.rows.append(row)

    def close(self) -> None:
        """Lets go of it: the same command goes on with it."""
        self._file.close()

    def finish(self) -> None:
        """Writes the table whole, and removes the journal. Raises as `write`."""
        atomically(self.out, self.write)
        self.remove()

    def write(self, file: Path) -> None:
        """The rows that are there into a file, in the order of ids. Raises DiffcernError where those of an older
        journal, which has no checksums, are not of one form."""
        (self._write_rows or self._table)(sorted(self.rows, key=lambda row: row["id"]), file)

    def remove(self) -> None:
        """Of a table that is written elsewhere."""
        self.path.unlink(missing_ok=True)
        beside(self.out).unlink(missing_ok=True)
        self._file.close()

    def _table(self, rows: list[dict[str, Any]], file: Path) -> None:
        types = dict(zip(self._schema.names, self._schema.types, strict=True))
        names = dict.fromkeys([*types, *(name for row in rows for name in row)])
        try:
            columns = {name: pa.array([row.get(name) for row in rows], types.get(name)) for name in names}
        except pa.ArrowException as error:
            raise DiffcernError(
                f"{self.path} holds rows of several forms ({error}): it was damaged; delete it to start again"
            ) from error
        table = pa.table({n: c.cast(pa.string()) if c.type == pa.null() else c for n, c in columns.items()})
        if self.out.suffix == ".parquet":
            pq.write_table(table, file)
        elif self.out.suffix == ".csv":
            pyarrow.csv.write_csv(table, file)
        else:
            file.write_text(json.dumps(rows, indent=1) + "\n")


def _older(checksum: str) -> int:
    number = checksum.partition("-")[0]
    return int(number) if number.isascii() and number.isdecimal() and len(number) < 10 else 0


def _object(line: bytes) -> dict[str, Any]:
    """The JSON object in a line; empty where there is none."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):  # also of bytes that are no text
        return {}
    return content if isinstance(content, dict) else {}


def read_rows(out: Path | str) -> list[dict[str, Any]]:
    """The rows of a finished Parquet file, here or in a store. Raises DiffcernError for one that is damaged, and as
    `reaching`."""
    content = pa.BufferReader(read_file(str(out)))
    with reading(out, "Delete it, and it is made again"):
        rows: list[dict[str, Any]] = pq.read_table(content).to_pylist()
        if not all(isinstance(row.get("id"), str) and isinstance(row["error"], str | None) for row in rows):
            raise ValueError("it has no columns id and error of texts")
    return rows
