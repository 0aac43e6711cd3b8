"""Images that a text file lists: a path or an address in an object store on each line, and a label after a tab."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from diffcern.data import columns
from diffcern.data.base import Accepts, Sample
from diffcern.data.images import UnreadableImage, decode
from diffcern.data.names import unique
from diffcern.data.places import Unreachable, open_file, reaching
from diffcern.errors import DiffcernError
from diffcern.files import is_url
from diffcern.texts import read_text


class FileList:
    """list_file: lines `PATH` or `PATH<tab>LABEL`, paths relative to the list's folder; empty lines are passed over.

    ids: the paths as they are written. Labels are numbers or names; class_names, max_side: as for `ParquetImages`.
    Raises DiffcernError for a list that is missing or empty, and paths that occur twice.
    """

    accepts: Accepts = None

    def __init__(
        self, list_file: str | Path, class_names: Sequence[str] | None = None, max_side: int | None = None
    ) -> None:
        path = Path(list_file).expanduser()
        if not path.is_file():
            raise DiffcernError(f"no such file: {path}; a list is a text file with a path on each line.")
        told: list[str | None] = []
        self.ids: Sequence[str] = unique(_listed(read_text(path), told), str(path))
        if not told:
            raise DiffcernError(f"{path} lists no images: a path on each line is wanted.")
        self.name, self._folder, self._max_side = path.stem, path.parent, max_side
        given = columns.spelt(told)
        self.targets, own = columns.labels(given, "label", class_names, {}, str(path))
        self.class_names, self.class_ids = columns.classes(own, {}, "label", self.targets, str(path))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        row = range(len(self))[index]
        name = self.ids[row]
        try:
            content = self.content(row)
        except Unreachable:
            raise
        except DiffcernError as error:  # one that is missing or refused is skipped and counted, as in a folder
            raise UnreadableImage(name, str(error)) from error
        return Sample(name, decode(content, name, self._max_side), self.targets[row])

    def file(self, index: int) -> str | Path:
        """The file or address of a row."""
        return self.ids[index] if is_url(self.ids[index]) else self._folder / self.ids[index]

    def content(self, index: int) -> bytes | Path:
        """The encoded image of a row. Raises DiffcernError where a store does not give it."""
        file = self.file(index)
        if isinstance(file, Path):
            return file
        with reaching(file), open_file(file) as stream:
            return stream.read()


def _listed(text: str, labels: list[str | None]) -> Iterator[str]:
    """The paths of a list, line by line; on the way the labels are put into `labels`, None for none."""
    for line in re.finditer(r"[^\n]*\S[^\n]*", text):
        name, _, label = line.group().partition("\t")
        labels.append(sys.intern(label.strip()) or None)
        yield name.strip()
