"""Images in WebDataset shards: tar files whose members of one name belong to one sample, `0001.jpg` and `0001.cls`.

The shards are gone through once, when the data set is opened, for what they hold and where (`shards.py`); an image is
then read from its place, in any order, without a byte of the others.
"""

from __future__ import annotations

import sys
import threading
from array import array
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import IO, Any

from diffcern.data import columns
from diffcern.data.base import Accepts, Sample
from diffcern.data.images import decode
from diffcern.data.names import unique
from diffcern.data.places import files_of, open_file, reaching, stretch_of
from diffcern.data.shards import LABEL, members
from diffcern.errors import DiffcernError
from diffcern.files import is_url


class WebDataset:
    """path: a shard, a folder of *.tar, or a pattern (`train-{000..011}.tar`, `s3://bucket/val-*.tar`).

    ids: the member's name up to its first dot, after the shard's where there are several; `0001.seg.png` beside
    `0001.png` is no image of its own, `img.001.png` beside no `img.png` is. Labels are those of the `.cls`
    members, numbers or names; class_names, max_side: as for `ParquetImages`. Raises DiffcernError for shards that are
    missing, damaged or truncated, for images of two suffixes under one name, and for ids that are not unique.
    """

    accepts: Accepts = None

    def __init__(self, path: str, class_names: Sequence[str] | None = None, max_side: int | None = None) -> None:
        self._shards = files_of(path, ".tar")
        self._max_side = max_side
        self.name = PurePosixPath(path).name
        self._shard, self._start, self._size = array("L"), array("Q"), array("Q")
        labels: list[str | None] = []
        self.ids: Sequence[str] = unique(self._listed(labels), path)
        if not labels:
            raise DiffcernError(f"{path} holds no images. Give a tar that has some.")
        self.targets, own = columns.labels(columns.spelt(labels), LABEL, class_names, {}, path)
        self.class_names, self.class_ids = columns.classes(own, {}, LABEL, self.targets, path)
        self._open: tuple[int, IO[bytes] | None] = (-1, None)
        self._lock = threading.Lock()

    def _listed(self, labels: list[str | None]) -> Iterator[str]:
        """The ids, shard by shard; on the way their labels are put into `labels`, and their places are kept."""
        for number, shard in enumerate(self._shards):
            samples, told = members(shard)
            before = f"{PurePosixPath(shard).stem}/" if len(self._shards) > 1 else ""
            for key, (start, size) in samples.items():
                label = told.get(key)
                labels.append(None if label is None else sys.intern(label))
                for values, value in ((self._shard, number), (self._start, start), (self._size, size)):
                    values.append(value)
                yield f"{before}{key}"

    def __len__(self) -> int:
        return len(self._start)

    def __getitem__(self, index: int) -> Sample:
        row = range(len(self))[index]
        return Sample(self.ids[row], decode(self.content(row), self.ids[row], self._max_side), self.targets[row])

    def file(self, index: int) -> str:
        """The shard that holds the image of a row."""
        return self._shards[self._shard[index]]

    def content(self, index: int) -> bytes:
        """The encoded image of a row. Raises DiffcernError where its shard is not what it was."""
        shard, start, size = self._shard[index], self._start[index], self._size[index]
        name = self._shards[shard]
        found = stretch_of(name, start, size) if is_url(name) else self._local(shard, start, size)
        if len(found) < size:
            raise DiffcernError(f"{name} ends before {self.ids[index]}: it was truncated; write it again")
        return found

    def _local(self, shard: int, start: int, size: int) -> bytes:
        """Of a file, which stays open for the next image."""
        name = self._shards[shard]
        with self._lock, reaching(name):
            if self._open[0] != shard:
                if self._open[1]:
                    self._open[1].close()
                self._open = shard, open_file(name)
            file = self._open[1]
            assert file is not None  # it was opened
            file.seek(start)
            return file.read(size)

    def __getstate__(self) -> dict[str, Any]:
        """For worker processes, which open shards for themselves."""
        return {**self.__dict__, "_open": (-1, None), "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())
