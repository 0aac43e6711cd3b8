"""What a table in parts says of itself, in a file beside the parts: its settings, then a line for each that is done."""

from __future__ import annotations

import json
from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from typing import Any

from diffcern.claims import changed, listed
from diffcern.data.places import read_file
from diffcern.errors import DiffcernError
from diffcern.fingerprints import digest
from diffcern.run.digests import Digests
from diffcern.run.storage import Storage

NAME = "_manifest.jsonl"  # Parquet's readers pass over names that begin so
Line = dict[str, Any]  # of a part: its number, rows, bytes, how many were skipped, and what it is about


class Manifest:
    """settings: what all parts were made with. again: how to start anew, as a message says it."""

    def __init__(self, storage: Storage, settings: Mapping[str, Any], again: str) -> None:
        self.storage, self.again = storage, again
        self._header = json.dumps(settings, sort_keys=True, default=str)

    def read(self, there: Container[str], begun: bool, overwrite: bool) -> dict[int, Line] | None:
        """Lines by part, a torn one left out; None where nothing was begun, or something else that overwrite allows
        for. begun: whether parts are there. Raises DiffcernError where what is there was made otherwise, or nobody
        knows how."""
        text = read_file(self.storage.at(NAME)).decode(errors="replace") if NAME in there else ""
        first, *lines = text.split("\n")
        if first == self._header:
            return dict(found for line in lines if (found := _told(line)))
        if overwrite or not (first or begun):
            return None
        with suppress(ValueError, AttributeError):
            said = listed(changed(json.loads(first), json.loads(self._header)))
            raise DiffcernError(f"{self.storage} was begun with other settings ({said}): {self.again}")
        raise DiffcernError(f"{self.storage.at(NAME)} is damaged in line 1: {self.again}")

    def write(self, done: Mapping[int, Line]) -> None:
        """These are the parts that are done."""
        text = "\n".join([self._header, *(json.dumps(done[number]) for number in sorted(done)), ""])
        self.storage.write(NAME, lambda file: file.write_bytes(text.encode()))


def _told(line: str) -> tuple[int, Line] | None:
    """The part that a line tells of; None of a torn one."""
    with suppress(ValueError, KeyError, TypeError):
        found = json.loads(line)
        return int(found["part"]), found
    return None


def stamp(ids: Sequence[str], digests: Digests | None) -> str:
    """Of the files that rows are about; "" where that cannot be told."""
    stamps = [digests.stamp(id) for id in ids] if digests else []
    return digest([list(ids), stamps]) if stamps and all(stamps) else ""


def content(ids: Sequence[str], digests: Digests | None) -> str:
    """Of what rows are about."""
    return digest([[id, digests(id) if digests else ""] for id in ids])
