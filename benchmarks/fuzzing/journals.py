"""Journals of interrupted commands: rows are those that were written, or the line is named; --overwrite mends them."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

from diffcern.errors import DiffcernError
from diffcern.run.journal import Journal

from .damage import ODD, changed_value, damaged_bytes
from .outcomes import Case

SETTINGS = {"images": "photos", "seed": 0, "fingerprints": {"predictor": "0123456789abcdef"}}
ROWS = [
    {"id": f"{k}.png", "before": "cat", "after": "dog é", "after_confidence": k / 7, "changed": True, "error": None}
    for k in range(6)
] + [{"id": "broken.png", "error": "the file is empty"}]


class Journals:
    """Lines edited, doubled, left out, exchanged, torn, of another journal and of another shape."""

    def __init__(self, folder: Path) -> None:
        self.out = folder / "result.parquet"
        self.path = folder / ".result.parquet.partial.jsonl"
        other = Journal(folder / "other.csv", {**SETTINGS, "seed": 1})
        other.add(ROWS[1])
        self.foreign = other.path.read_bytes().splitlines()[1]
        journal = Journal(self.out, SETTINGS)
        for row in ROWS:
            journal.add(row)
        self.lines = journal.path.read_bytes().splitlines()
        del journal

    def case(self, rng: Random) -> Case:
        lines, number = list(self.lines), rng.randrange(len(self.lines))
        way = rng.choice(
            ["bytes", "bytes", "edited", "doubled", "left out", "moved", "shape", "foreign", "odd", "torn"]
        )
        whole = rng.random() < 0.03
        if whole or way == "torn":
            content = b"\n".join([*lines, b"" if whole else lines[number][: rng.randrange(1, 20)]])
            return Case("whole" if whole else "torn", lambda: self._same(content), whole=True)
        if way == "bytes":
            way, content = damaged_bytes(b"\n".join([*lines, b""]), rng)
            return Case(way, lambda: self._same(content))
        if way == "edited":
            way, row = changed_value(json.loads(lines[number]), rng)
            lines[number] = json.dumps(row).encode()
        elif way == "doubled":
            lines.insert(rng.randrange(1, len(lines)), lines[number])
        elif way == "left out":
            del lines[number]
        elif way == "moved":
            lines[number], lines[-1] = lines[-1], lines[number]
        elif way == "shape":
            lines[number] = json.dumps(rng.choice(ODD)).encode()
        elif way == "foreign":
            lines[number] = self.foreign
        else:
            lines[number] = rng.choice([b"", b"\xff", b"{", b"[" * 10_000, b"\0" * 40, lines[number] + b"\r", b" "])
        content = b"\n".join([*lines, b""])
        return Case(f"line {number + 1} {way}", lambda: self._same(content))

    def _same(self, content: bytes) -> bool:
        """Whether the rows are among those that were written; also with --overwrite, which always works."""
        self.path.write_bytes(content)
        try:
            rows: list[dict[str, Any]] = Journal(self.out, SETTINGS).rows
        except DiffcernError:
            mended = Journal(self.out, SETTINGS, overwrite=True).rows
            if not all(row in ROWS for row in mended) or Journal(self.out, SETTINGS).rows != mended:
                return False
            raise
        return all(row in ROWS for row in rows) and len({row["id"] for row in rows}) == len(rows)
