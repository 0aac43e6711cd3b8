"""Images in Parquet files, in the Hugging Face convention: `image: {bytes, path}`, `label`, optionally `id`.

A row without bytes names a file, absolute or relative to the Parquet file; so does a column of texts.

Only the row groups that are asked for are read; labels and ids are read once, without the images.
"""

from __future__ import annotations

import re
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from diffcern.data import columns
from diffcern.data.base import Accepts, Sample
from diffcern.data.images import UnreadableImage, decode
from diffcern.data.maps import known, map_columns, whose_names
from diffcern.data.names import unique
from diffcern.data.places import files_of, open_file
from diffcern.errors import DiffcernError
from diffcern.files import is_url, reading
from diffcern.texts import decode_text, parse_json

CACHE_BYTES = 256 * 2**20  # of encoded images per data set, lest random access reread row groups
PATTERN = re.compile(r"[*?{\[]")
SPLIT_WORDS = {"train": "train", "test": "test", "val": "validation", "valid": "validation"}
SPLIT_WORDS |= {"validation": "validation", "dev": "validation"}


class ParquetImages:
    """A labelled or unlabelled image table; `path` is a file, a folder of `*.parquet` or a glob pattern, here or in an
    object store (`places.py`).

    image_column, label_column: found from the schema unless given; without `labelled`, no label is looked for. ids:
    the column `id` where there is one, else the row number. class_names: given, else those in the schema's Hugging
    Face metadata, else "0".."K-1". A column of masks or depth maps (their usual names: `kinds`) is read too.
    mask_names: the classes of the masks ("void": no class); without labels class_names will do. max_side: see
    `images.decode`; masks and depth maps keep their size.

    Raises `DiffcernError` for a missing, damaged or empty file, a missing column (listing those there are),
    ids that are not unique, and a folder that holds several splits.
    """

    accepts: Accepts = None

    def __init__(
        self,
        path: str | Path,
        class_names: Sequence[str] | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        max_side: int | None = None,
        labelled: bool = True,
        mask_names: Sequence[str] | None = None,
    ) -> None:
        files = _files(str(path))
        self._max_side = max_side
        self.name = _name(Path(path))
        where = str(path)
        with _open(files[0]) as first:
            schema = first.schema_arrow
        features = _features(schema, files[0])
        encoded = [c for c in schema.names if c not in (image_column, label_column) and _encoded(schema, c)]
        maps = map_columns(encoded)
        others = [column for column in schema.names if column not in maps.columns]
        self._image = columns.image_column(others, features, image_column, where)
        plain = others if label_column else [c for c in others if c not in encoded]  # pictures are no labels
        label = columns.label_column(plain, features, label_column, where) if labelled else None
        self._pixels = [self._image, *maps.columns]
        cheap = [column for column in (label, "id" if "id" in schema.names else None) if column]

        self._groups: list[tuple[Path | str, int]] = []
        self._starts: list[int] = []  # first row of each group
        rows = 0
        for part in files:
            with _open(part) as file:
                _check_columns(file, [*self._pixels, *cheap], part)
                for group in range(file.num_row_groups):
                    self._groups.append((part, group))
                    self._starts.append(rows)
                    rows += file.metadata.row_group(group).num_rows
        if not rows:
            raise DiffcernError(f"{where} holds no rows. Give a table that has some.")
        self._length = rows
        values = read_columns(path, cheap)
        ids = columns.texts(values["id"], "id", where) if "id" in values else map(str, range(rows))
        self.ids = unique(ids, where)
        own, theirs = whose_names(label is not None, maps.mask is not None, class_names, mask_names)
        self.targets: Sequence[int] = [-1] * rows
        if label is not None:
            self.targets, own = columns.labels(values[label], label, own, features, where)
        self.class_names, self.class_ids = columns.classes(own, features, label, self.targets, where)
        self._maps = replace(maps, indices=tuple(theirs or ()))
        self.mask_names = known(self._maps.indices)
        self._cache: OrderedDict[int, pa.Table] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Sample:
        row = range(self._length)[index]
        name = self.ids[row]
        image = self._stored(self._image, row)
        if image is None:
            raise UnreadableImage(name, f"column {self._image!r} holds no image bytes and no path in this row")
        mask, depth = self._maps.decode(lambda column: columns.content(self._stored(column, row), name), name)
        return Sample(name, decode(image, name, self._max_side), self.targets[row], mask, depth)

    def file(self, index: int) -> Path | str:
        """The table that holds a row, whose image may lie beside it."""
        return self._groups[bisect_right(self._starts, index) - 1][0]

    def content(self, index: int) -> bytes | Path | None:
        """The encoded image of a row, or the file that has it; None where there is neither."""
        return self._stored(self._image, index)

    def _stored(self, column: str, row: int) -> bytes | Path | None:
        """The encoded pixels of one row, or the file that has them; None where this row of the column has none."""
        group = bisect_right(self._starts, row) - 1
        value = self._row_group(group)[column][row - self._starts[group]].as_py()
        place = self._groups[group][0]
        return columns.stored(value, place.parent if isinstance(place, Path) else Path(), self.ids[row])

    def _row_group(self, group: int) -> pa.Table:
        """The columns of pixels of one row group, kept while `CACHE_BYTES` allow (always at least the latest)."""
        with self._lock:
            if group not in self._cache:
                path, number = self._groups[group]
                with _open(path) as file:
                    self._cache[group] = _read(file, self._pixels, path, number)
                while len(self._cache) > 1 and sum(a.nbytes for a in self._cache.values()) > CACHE_BYTES:
                    self._cache.popitem(last=False)
            self._cache.move_to_end(group)
            return self._cache[group]

    def __getstate__(self) -> dict[str, Any]:
        """For worker processes: everything but the cache, which each of them fills for itself."""
        return {**self.__dict__, "_cache": OrderedDict(), "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())


def read_columns(path: str | Path, names: Sequence[str], optional: Sequence[str] = ()) -> dict[str, list[Any]]:
    """The values of whole columns, row by row as in `ParquetImages`; `optional` ones only where there are any.

    Raises `DiffcernError` for files that are missing or damaged, and for a missing column.
    """
    files = _files(str(path))
    with _open(files[0]) as first:
        wanted = [*names, *(column for column in optional if column in first.schema_arrow.names)]
    values: dict[str, list[Any]] = {column: [] for column in wanted}
    for part in files:
        with _open(part) as file:
            _check_columns(file, wanted, part)
            table = _read(file, wanted, part)
        for column in wanted:
            with reading(part, f"Its column {column!r} is damaged"):
                values[column] += table[column].to_pylist()  # texts that are none show here
    return values


def _encoded(schema: pa.Schema, name: str) -> bool:
    """Whether a column holds encoded images, and not numbers that are called alike."""
    if schema.names.count(name) > 1:  # which cannot be told apart by name: `_check_columns` says so
        return False
    kind = schema.field(name).type
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _files(path: str) -> list[Path | str]:
    files = files_of(path, ".parquet")
    stems = [PurePosixPath(file).stem for file in files]
    splits = {split for stem in stems if (split := _split(stem))}
    if len(splits) > 1 and (Path(path).is_dir() or not PATTERN.search(path)):
        hint = f"name one, for example {path.rstrip('/')}/{stems[0].split('-')[0]}*.parquet"
        raise DiffcernError(f"{path} holds several splits ({', '.join(sorted(splits))}); {hint}.")
    return [*files] if is_url(path) else [Path(file) for file in files]


def _split(stem: str) -> str | None:
    """The split a file name speaks of: `train-00000-of-00002` is part of "train"."""
    words = re.split(r"[^a-z]+", stem.lower())
    return next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), None)


def _name(path: Path) -> str:
    """A short name: `cifar10/test` for `.../cifar10/test.parquet`, the folder's name for a folder."""
    path = path.absolute()
    return path.name if path.is_dir() else f"{path.parent.name}/{path.stem}"


def _open(path: Path | str) -> pq.ParquetFile:
    source = path if isinstance(path, Path) else open_file(path)
    try:
        file = pq.ParquetFile(source)
        _ = file.schema_arrow.names  # read from the footer too
        return file
    except Exception as error:  # a damaged footer makes Arrow raise whatever its parts do
        raise DiffcernError(f"cannot read {path}: truncated or not a Parquet file ({error}).") from error


def _read(file: pq.ParquetFile, names: list[str], path: Path | str, group: int | None = None) -> pa.Table:
    # one thread: Arrow's pool does not survive a fork into loader workers
    try:
        if group is None:
            table, count = file.read(columns=names, use_threads=False), file.metadata.num_rows
        else:
            table = file.read_row_group(group, columns=names, use_threads=False)
            count = file.metadata.row_group(group).num_rows
        if len(table) != count:
            raise ValueError(f"{len(table)} rows where its footer says {count}")
        return table
    except Exception as error:  # as in `_open`
        raise DiffcernError(f"cannot read {path}: damaged ({error}).") from error


def _check_columns(file: pq.ParquetFile, needed: list[str], path: Path | str) -> None:
    there = file.schema_arrow.names
    missing = [column for column in needed if column not in there]
    if missing:
        raise DiffcernError(f"{path} has no column {', '.join(missing)}; it has {', '.join(there)}.")
    if twice := [column for column in needed if there.count(column) > 1]:
        raise DiffcernError(f"{path} has two columns {twice[0]!r}: which one is meant? Rename the other.")


def _features(schema: pa.Schema, path: Path | str) -> columns.Features:
    """The Hugging Face description of the columns, {} where the file carries none.

    Raises DiffcernError for one that is damaged: without it, labels would be numbers without a word.
    """
    text = (schema.metadata or {}).get(b"huggingface")
    if text is None:
        return {}
    advice = "Write the file again, or without its Hugging Face metadata"
    with reading(path, advice):
        try:
            content = parse_json(decode_text(text, path), "its Hugging Face metadata", finite=False)
        except DiffcernError as error:
            raise ValueError(str(error)) from error
        described = _object(content)
        features = _object(_object(described.get("info")).get("features"))
        for name, feature in features.items():
            names = feature.get("names") if isinstance(feature, dict) else None
            if names is not None and not (isinstance(names, list) and all(isinstance(known, str) for known in names)):
                raise ValueError(f"the classes of its column {name!r} are no list of texts")
    return features


def _object(value: object) -> dict[str, Any]:
    """A JSON object, or none at all; ValueError for anything else."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"its Hugging Face metadata holds {value!r:.60} where an object belongs")
    return value
