"""Images and captions to be matched: which caption describes which image.

Winoground (Thrush et al. 2022, arXiv 2204.03162) sets two images against two captions of the same words; a table of
pairs sets an image and its caption against other captions, or against the images and captions of its group.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data._utils.collate import default_collate_fn_map

from diffcern.data.base import Dataset, Subset
from diffcern.data.columns import texts
from diffcern.data.folder import ImageFolder, some
from diffcern.data.images import UnreadableImage
from diffcern.data.names import unique
from diffcern.data.parquet import ParquetImages, read_columns
from diffcern.errors import DiffcernError
from diffcern.texts import read_json_lines

SIDES = ("image_0", "image_1")  # of Winoground, as its captions
CAPTIONS = ("caption_0", "caption_1")
TAGS = ("tag", "secondary_tag", "collapsed_tag")  # what the two captions swap


@dataclass(frozen=True)
class MatchingExample:
    """Images `[3, H, W]` in [0, 1], of any sizes, and captions: `captions[k]` describes `images[k]`.

    Captions beyond the images describe none of them. tags: Winoground's, by column; empty elsewhere.
    """

    id: str
    images: tuple[Tensor, ...]
    captions: tuple[str, ...]
    tags: Mapping[str, str]


# DataLoader(...) gives lists of them: images of several sizes and texts do not stack.
default_collate_fn_map[MatchingExample] = lambda items, *, collate_fn_map=None: list(items)


@dataclass(frozen=True)
class Paired:
    """An example before it is decoded: image k is row `images[k][1]` of the data set `images[k][0]`."""

    id: str
    images: tuple[tuple[Dataset, int], ...]
    captions: tuple[str, ...]
    tags: Mapping[str, str]


class Pairs:
    """Matching examples in order; ids and captions are known without decoding an image.

    `pairs[i]` takes negative indices, raises IndexError past the end and `UnreadableImage`, which names the example
    and the image, where one cannot be decoded; `diffcern.data.readable` yields that error in the example's place.
    Raises `DiffcernError` for ids that are not unique.
    """

    def __init__(self, name: str, entries: Sequence[Paired]) -> None:
        self.name = name
        self.entries = entries
        self.ids = unique([entry.id for entry in entries], name)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> MatchingExample:
        entry = self.entries[index]
        images = []
        for k, (source, row) in enumerate(entry.images):
            try:
                images.append(source[row].image)
            except UnreadableImage as error:
                raise UnreadableImage(entry.id, f"image {k} ({error.name}): {error.reason}") from error
        return MatchingExample(entry.id, tuple(images), entry.captions, entry.tags)

    def __iter__(self) -> Iterator[MatchingExample]:
        return (self[index] for index in range(len(self)))


def winoground(path: Path, max_side: int | None = None) -> Pairs:
    """Winoground in either form of the hub: Parquet, or a folder with examples.jsonl and images/ (in it or in data/).

    Two images and two captions per example. Raises `DiffcernError` for columns, files and captions that are missing.
    """
    lists = [place / "examples.jsonl" for place in (path, path / "data")]
    listed = next((file for file in lists if file.is_file()), None)
    sides: list[Dataset]
    if listed is None:
        sides = [ParquetImages(path, image_column=side, max_side=max_side, labelled=False) for side in SIDES]
        values = read_columns(path, CAPTIONS, TAGS) | {"id": list(sides[0].ids)}
        rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    else:
        rows = _json_lines(listed, ["id", *SIDES, *CAPTIONS])
        sides = _files(listed.parent / "images", [[row[side] for row in rows] for side in SIDES], max_side)
    entries = []
    ids = texts([row["id"] for row in rows], "id", str(path))
    for number, (id_, row) in enumerate(zip(ids, rows, strict=True)):
        captions = tuple(_text(row[column], column, id_, path) for column in CAPTIONS)
        tags = {column: _tag(row[column], column, id_, path) for column in TAGS if column in row}
        entries.append(Paired(id_, tuple((side, number) for side in sides), captions, tags))
    return Pairs("winoground", entries)


def caption_pairs(path: Path, max_side: int | None = None) -> Pairs:
    """A table with an image and its caption in every row, in Parquet as of `ParquetImages`.

    Columns: image, caption; optional: id, negatives (a list of captions that do not describe the image), group. Rows
    of one group make one example, whose images and captions are set against each other; its id is the group's. A row
    without a group is an example for itself. Raises `DiffcernError` for missing columns and captions.
    """
    images = ParquetImages(path, max_side=max_side, labelled=False)
    values = read_columns(path, ["caption"], ["negatives", "group"])
    count = len(images)
    groups: dict[tuple[str, str], list[int]] = {}
    for row, group in enumerate(values.get("group", [None] * count)):
        alone = group is None or group != group  # null, and NaN, as pandas writes it
        key = ("row", images.ids[row]) if alone else ("group", texts([group], "group", str(path))[0])
        groups.setdefault(key, []).append(row)

    negatives = values.get("negatives", [None] * count)
    entries = []
    for (_, id_), rows in groups.items():
        said = [values["caption"][row] for row in rows]
        for row in rows:
            said += _listed(negatives[row], "negatives", id_, path)
        captions = tuple(_text(text, "caption", id_, path) for text in said)
        entries.append(Paired(id_, tuple((images, row) for row in rows), captions, {}))
    return Pairs(images.name, entries)


def _files(folder: Path, sides: Sequence[Sequence[str]], max_side: int | None) -> list[Dataset]:
    """The images in `folder` (images.zip, unpacked) by their names without suffix, for each side in its order."""
    if not folder.is_dir():
        raise DiffcernError(f"no such folder: {folder}; unpack images.zip beside examples.jsonl.")
    images = ImageFolder(folder, max_side)
    stems = [Path(id_).stem for id_ in images.ids]
    rows = {stem: row for row, stem in enumerate(stems)}
    wanted = [name for names in sides for name in names]
    missing = [name for name in wanted if name not in rows]
    if missing:
        raise DiffcernError(f"{folder} lacks images that examples.jsonl names: {some(missing)}.")
    count = Counter(stems)
    if doubtful := [name for name in wanted if count[name] > 1]:
        raise DiffcernError(
            f"{folder} holds several images called {doubtful[0]}, which examples.jsonl names: keep one."
        )
    return [Subset(images, [rows[name] for name in names]) for names in sides]


def _json_lines(path: Path, keys: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for place, row in read_json_lines(path):
        if not isinstance(row, dict) or not all(key in row for key in keys):
            raise DiffcernError(f"{place}: not a JSON object with {', '.join(keys)}.")
        for side in SIDES:
            if not isinstance(row[side], str) or not row[side]:
                raise DiffcernError(f"{place}: {side} must be the name of an image, but is {row[side]!r}.")
        rows.append(row)
    if not rows:
        raise DiffcernError(f"{path} holds no examples. Give a file that has some.")
    return rows


def _tag(value: object, column: str, id_: str, where: Path) -> str:
    """What the captions swap, "" where nothing is said."""
    return _text(value, column, id_, where) if value not in (None, "") else ""


def _listed(value: object, column: str, id_: str, where: Path) -> list[Any]:
    if value is not None and not isinstance(value, list):
        raise DiffcernError(f"{where}: {column} of example {id_!r} must be a list of texts, but is {value!r}.")
    return value or []


def _text(value: object, column: str, id_: str, where: Path) -> str:
    if not isinstance(value, str) or not value.strip():
        raise DiffcernError(f"{where}: {column} of example {id_!r} must be a text, but is {value!r}.")
    return value
