"""What a row answers about, as it is now: an answer is none any more where that has changed since."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffcern.data import Dataset, Pairs, Questions, Subset
from diffcern.data.places import Unreachable, version_of
from diffcern.errors import DiffcernError
from diffcern.files import is_url
from diffcern.fingerprints import digest


@dataclass(frozen=True)
class About:
    """What one row answers about. images: rows of data sets, encoded; texts: beside them."""

    images: tuple[tuple[Dataset, int], ...]
    texts: tuple[object, ...] = ()


class Digests:
    """The digest of what is answered about, by id; "" for an id that is not known, or where it is made and not stored.

    about: by id. out: a result on the way, beside which digests are kept: where the files are those that they were, by
    size, times and inode (in a store: by its tag or time), they are not read again.
    """

    def __init__(self, about: Callable[[str], About | None], out: Path | None = None) -> None:
        self._about, self._versions = about, dict[str, str]()
        self._kept = Kept(beside(out)) if out else None

    def __call__(self, id: str) -> str:
        about = self._about(id)
        if about is None:
            return ""
        stamp = self._stamps(about) if self._kept else ""
        if self._kept and stamp and (known := self._kept.get(id, stamp)):
            return known
        found, inside = self._contents(about)
        if self._kept and stamp and inside:
            self._kept.put(id, stamp, found)
        return found

    def changed(self, id: str) -> bool:
        """Whether it is another than the one of that id that was kept; where none was, this one is from now on. What
        has no file that tells, as what is made, is never another."""
        about = self._about(id)
        if about is None or self._kept is None or not (stamp := self._stamps(about)):
            return False
        before = self._kept.digest(id)
        if not before:
            self(id)
        elif not self._kept.get(id, stamp):
            now, _ = self._contents(about)
            if now != before:
                return True
            self._kept.put(id, stamp, now)
        return False

    def stamp(self, id: str) -> str:
        """What changes with the files that hold it; "" where that cannot be told."""
        about = self._about(id)
        return self._stamps(about) if about else ""

    def _stamps(self, about: About) -> str:
        stamps = [self._stamp(*image) for image in about.images]
        texts = [digest(about.texts)] if about.texts else []
        return " ".join([*stamps, *texts]) if all(stamps) else ""

    def _stamp(self, dataset: Dataset, row: int) -> str:
        """What changes with the file that holds an image of a row; "" where there is none, or it cannot be told."""
        source, row = _source(dataset, row)
        if not hasattr(source, "file"):
            return ""
        file = str(source.file(row))
        return self._version(file) if is_url(file) else _times(file)

    def _version(self, url: str) -> str:
        """A store is asked once about a file, however many rows are in it. Raises Unreachable."""
        if url not in self._versions:
            try:
                self._versions[url] = version_of(url)
            except Unreachable:
                raise
            except DiffcernError:
                self._versions[url] = ""
        return self._versions[url]

    def _contents(self, about: About) -> tuple[str, bool]:
        """The digest of all of it, and whether the stamped files hold it."""
        contents = [self._content(*image) for image in about.images]
        found = digest([[content for content, _ in contents], about.texts]) if about.texts else contents[0][0]
        return found, all(inside for _, inside in contents)

    def _content(self, dataset: Dataset, row: int) -> tuple[str, bool]:
        """The digest of an encoded image, and whether the stamped file holds it, and not one that this names. What a
        store can tell the version of is not fetched for it."""
        source, place = _source(dataset, row)
        if hasattr(source, "file") and is_url(str(source.file(place))) and (version := self._stamp(source, place)):
            return digest([version, source.ids[place]]), True
        return _content(source, place)


def of_images(dataset: Dataset, out: Path | None = None, rows: Sequence[int] | None = None) -> Digests:
    """Of the encoded image. rows: those that are asked about, else all."""
    ids = dataset.ids
    places = {ids[row]: row for row in (range(len(ids)) if rows is None else rows)}
    return Digests(lambda id: About(((dataset, places[id]),)) if id in places else None, out)


def of_examples(pairs: Pairs, out: Path | None = None, rows: Sequence[int] | None = None) -> Digests:
    """Of the images and captions of an example."""
    entries = {entry.id: entry for entry in _some(pairs.entries, rows)}
    return Digests(lambda id: About(e.images, tuple(e.captions)) if (e := entries.get(id)) else None, out)


def of_questions(questions: Questions, out: Path | None = None, rows: Sequence[int] | None = None) -> Digests:
    """Of the image, the question and what may be answered."""
    asked = {entry.id: entry for entry in _some(questions.asked, rows)}

    def about(id: str) -> About | None:
        e = asked.get(id)
        return About((e.image,), (e.question, e.answer, e.kind, *e.choices)) if e else None

    return Digests(about, out)


def _some(entries: Sequence[Any], rows: Sequence[int] | None) -> Sequence[Any]:
    return entries if rows is None else [entries[row] for row in rows]


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

    def digest(self, id: str) -> str:
        """ "" where there is none; of whichever stamp."""
        return self._known.get(id, ("", ""))[1]

    def put(self, id: str, stamp: str, digest: str) -> None:
        self._known[id] = stamp, digest
        with self._file.open("a") as file:
            file.write(json.dumps([id, stamp, digest]) + "\n")


def _times(file: str) -> str:
    """Of a file of this machine; "" where it is not there."""
    try:
        found = os.stat(file)  # noqa: PTH116
    except OSError:
        return ""
    return f"{found.st_size}-{found.st_mtime_ns}-{found.st_ctime_ns}-{found.st_ino}"


def _source(dataset: Dataset, row: int) -> tuple[Any, int]:
    source: Any = dataset
    while isinstance(source, Subset):
        source, row = source.source, source.indices[row]
    return source, row


def _content(source: Any, row: int) -> tuple[str, bool]:
    """As `Digests._content`, by reading it. Raises Unreachable."""
    if not hasattr(source, "content"):
        return "", False
    try:
        found = source.content(row)
        data = found.read_bytes() if isinstance(found, Path) else found
    except Unreachable:
        raise
    except (OSError, DiffcernError):  # an answer that it cannot be read is one, too
        return "unreadable", False
    if data is None:
        return "", False
    inside = not isinstance(found, Path) or (hasattr(source, "file") and found == source.file(row))
    return hashlib.blake2b(data, digest_size=8).hexdigest(), inside
