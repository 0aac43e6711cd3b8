"""What a row answers about, as it is now: an answer is none any more where that has changed since."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffcern.data import Dataset, Pairs, Questions, Subset
from diffcern.errors import DiffcernError
from diffcern.fingerprints import digest

Digests = Callable[[str], str]  # by id


def of_images(dataset: Dataset, out: Path | None = None) -> Digests:
    """Of the encoded image; "" where the data set makes its images, or has lost this one.

    out: a result on the way, beside which digests are kept: an image whose file is the one that it was, by size, times
    and inode, is not read again.
    """
    rows = {id: index for index, id in enumerate(dataset.ids)}
    kept = Kept(beside(out)) if out else None

    def found(id: str) -> str:
        if id not in rows:
            return ""
        stamp = _stamp(dataset, rows[id]) if kept else ""
        if kept and stamp and (known := kept.get(id, stamp)):
            return known
        digest, inside = _content(dataset, rows[id])
        if kept and stamp and inside:
            kept.put(id, stamp, digest)
        return digest

    return found


def beside(out: Path) -> Path:
    """The file of digests that belongs to a result."""
    return out.with_name(f".{out.name}.digests.jsonl")


class Kept:
    """Digests by id and stamp, a line for each; lines that are torn or damaged are none."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: dict[str, tuple[str, str]] = {}
        for line in file.read_text(errors="replace").splitlines() if file.is_file() else ():
            with contextlib.suppress(ValueError, TypeError):
                id, stamp, digest = map(str, json.loads(line))
                self._known[id] = stamp, digest

    def get(self, id: str, stamp: str) -> str:
        """ "" where there is none, or one of another stamp."""
        known, digest = self._known.get(id, ("", ""))
        return digest if known == stamp else ""

    def put(self, id: str, stamp: str, digest: str) -> None:
        self._known[id] = stamp, digest
        with self._file.open("a") as file:
            file.write(json.dumps([id, stamp, digest]) + "\n")


def of_examples(pairs: Pairs) -> Digests:
    """Of the images and captions of an example."""
    entries = {entry.id: entry for entry in pairs.entries}

    def found(id: str) -> str:
        return _whole([_content(*image)[0] for image in entries[id].images], entries[id].captions)

    return lambda id: found(id) if id in entries else ""


def of_questions(questions: Questions) -> Digests:
    """Of the image, the question and what may be answered."""
    asked = {entry.id: entry for entry in questions.asked}

    def found(id: str) -> str:
        entry = asked[id]
        return _whole([_content(*entry.image)[0]], (entry.question, entry.answer, entry.kind, *entry.choices))

    return lambda id: found(id) if id in asked else ""


def _whole(images: list[str], texts: tuple[str, ...]) -> str:
    return digest([images, texts])


def _stamp(dataset: Dataset, row: int) -> str:
    """What changes with the file that holds an image of a row; "" where there is none, or it cannot be told."""
    source, row = _source(dataset, row)
    if not hasattr(source, "file"):
        return ""
    try:
        found = os.stat(source.file(row))  # noqa: PTH116
    except OSError:
        return ""
    return f"{found.st_size}-{found.st_mtime_ns}-{found.st_ctime_ns}-{found.st_ino}"


def _source(dataset: Dataset, row: int) -> tuple[Any, int]:
    source: Any = dataset
    while isinstance(source, Subset):
        source, row = source.source, source.indices[row]
    return source, row


def _content(dataset: Dataset, row: int) -> tuple[str, bool]:
    """The digest of an encoded image, and whether the stamped file holds it, and not one that this names."""
    source, row = _source(dataset, row)
    if not hasattr(source, "content"):
        return "", False
    try:
        found = source.content(row)
        data = found.read_bytes() if isinstance(found, Path) else found
    except (OSError, DiffcernError):  # an answer that it cannot be read is one, too
        return "unreadable", False
    if data is None:
        return "", False
    inside = not isinstance(found, Path) or (hasattr(source, "file") and found == source.file(row))
    return hashlib.blake2b(data, digest_size=8).hexdigest(), inside
