"""Which columns of a Hugging Face style table hold images, labels and ids, and what the classes are called.

`features` is the plain form of `datasets.Features`, `{"label": {"_type": "ClassLabel", "names": [...]}}`;
empty where a table carries no such description.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffcern.data.images import UnreadableImage
from diffcern.errors import DiffcernError
from diffcern.kinds import CLASSIFICATION
from diffcern.labels import WORDNET_ID

IMAGE_COLUMNS = ("image", "img", "jpg", "png", "picture", "photo")
# Of tables that name files beside them (`metadata.parquet` of an image folder), where no column above is there.
PATH_COLUMNS = ("file_name", "image_path", "image_file", "filepath", "file_path", "filename", "path")

NUMBER = re.compile(r"-?[0-9]{1,18}")  # as a text
MOST_CLASSES = 1_000_000  # that are named by their number

Features = Mapping[str, Any]


def image_column(columns: Sequence[str], features: Features, wanted: str | None, where: str) -> str:
    """The column `wanted`, else one of the usual names, else the only one described as an image, else one of paths.

    Raises `DiffcernError`, listing the columns there are.
    """
    if wanted is not None:
        return _require(wanted, columns, where)
    described = [c for c in columns if is_image(features, c)]
    for column in IMAGE_COLUMNS:
        if column in (described or columns):
            return column
    if len(described) == 1:
        return described[0]
    for column in PATH_COLUMNS:
        if not described and column in columns:
            return column
    raise DiffcernError(
        f"{where} has no image column: looked for {', '.join(IMAGE_COLUMNS)}; it has {', '.join(columns)}. "
        "Give image_column."
    )


def encoded_columns(features: Features) -> list[str]:
    """The columns described as images, or as plain bytes."""
    return [column for column in features if is_image(features, column) or _is_bytes(features[column])]


def is_image(features: Features, column: str) -> bool:
    """Whether a column is described as images."""
    return _type(features, column) == "Image"


def label_column(columns: Sequence[str], features: Features, wanted: str | None, where: str) -> str | None:
    """The column `wanted`, else one of the usual names, else the only one described as a label, else None."""
    if wanted is not None:
        return _require(wanted, columns, where)
    described = [c for c in columns if _type(features, c) == "ClassLabel"]
    for column in CLASSIFICATION.columns:
        if column in (described or columns):
            return column
    return described[0] if len(described) == 1 else None


def classes(
    given: Sequence[str] | None, features: Features, label: str | None, targets: Sequence[int], where: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The classes' names and their WordNet ids, () where unknown.

    The names are the ones given, else those of the features, else "0".."K-1" up to the largest target seen. ImageNet's
    1,000 in their usual order, whichever way they are spelled, become `imagenet_labels()`, as of the predictors.

    Raises `DiffcernError` where a target has no name, or the names given are not as many as the features'.
    """
    feature = features.get(label) if label is not None else None
    known = feature.get("names") if isinstance(feature, Mapping) else None
    highest = max(targets, default=-1)
    if given is not None and known and len(given) != len(known):
        raise DiffcernError(f"{where} names {len(known)} classes, class_names {len(given)}. Give as many, or none.")
    if not given and not known and highest >= MOST_CLASSES:
        raise DiffcernError(
            f"{where} has the label {highest}, and names no classes: labels count from 0. Give names for "
            "all, or smaller labels."
        )
    names = tuple(given or known or map(str, range(highest + 1)))
    if highest >= len(names):
        raise DiffcernError(
            f"{where} has the label {highest}, but only {len(names)} class names. Give a name for each label."
        )
    if min(targets, default=-1) < -1:
        raise DiffcernError(f"{where} has the label {min(targets)}; labels count from 0, -1 means unknown.")
    ids = wordnet_ids(names)
    if len(given or known or ()) == 1000 and not ids:
        from diffcern.labels import label_space  # slow to import, and only needed here

        imagenet = label_space(names)
        return (imagenet.names, imagenet.ids) if imagenet.ids else (names, ())
    return names, ids


def wordnet_ids(names: Sequence[str]) -> tuple[str, ...]:
    """The names, where every one of them is a WordNet id such as "n01440764"; else ()."""
    return tuple(names) if all(WORDNET_ID.fullmatch(name) for name in names) else ()


def spelt(values: Sequence[str | None]) -> list[int | str | None]:
    """Labels from a text: numbers where all of them are, else names."""
    numbers = all(value is None or NUMBER.fullmatch(value) for value in values)
    return [int(value) if numbers and value is not None else value for value in values]


def labels(
    values: Sequence[Any], column: str | None, given: Sequence[str] | None, features: Features, where: str
) -> tuple[list[int], Sequence[str] | None]:
    """The labels in a column as integers, -1 where unknown, and the names of their classes so far as they are given.

    Texts are numbered by the names that are given, else in plain string order, as class folders are. Raises
    `DiffcernError` for a text that is none of the names, and as `integers`.
    """
    texts = {value for value in values if isinstance(value, str)}
    if column is None or not texts or any(not isinstance(value, str | None) for value in values):
        return integers(values, column or "", where), given
    feature = features.get(column)
    names = given or (feature.get("names") if isinstance(feature, Mapping) else None) or sorted(texts)
    number = {name: k for k, name in enumerate(names)}
    if strange := sorted(texts - number.keys()):
        raise DiffcernError(
            f"{where}: column {column!r} holds {', '.join(strange[:6])}, and the class names are "
            f"{', '.join(names[:8])}."
        )
    return [-1 if value is None else number[value] for value in values], tuple(names)


def integers(values: Iterable[Any], column: str, where: str) -> list[int]:
    """Labels as integers; null means unknown, -1. Raises `DiffcernError` for anything else."""
    targets = [-1 if value is None else value for value in values]
    odd = next((value for value in targets if not isinstance(value, int) or isinstance(value, bool)), None)
    if odd is not None:
        raise DiffcernError(f"{where}: column {column!r} must hold integer labels, but holds {odd!r}.")
    return [int(value) for value in targets]


def texts(values: Iterable[Any], column: str, where: str) -> list[str]:
    """Ids as texts, numbers as they are written. Raises `DiffcernError` where there is none, or something else."""
    values = list(values)
    for value in values:
        known = isinstance(value, str | int | float) and not isinstance(value, bool) and value == value  # NaN is not
        if not known or value == "":
            raise DiffcernError(f"{where}: column {column!r} must hold texts or numbers, but holds {value!r}.")
    return [str(value) for value in values]


def stored(value: Any, folder: Path, name: str) -> bytes | Path | None:
    """What a row holds of an image: its bytes, else the file that it names, None for neither.

    value: bytes, a path, or the usual `{bytes, path}`. folder: the table's, which a path is relative to (or to the
    working directory, as for `datasets`). Raises `UnreadableImage`, which names the sample, for an address.
    """
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if not isinstance(value, str):
        return value if isinstance(value, bytes) else None
    if "://" in value:
        raise UnreadableImage(name, f"the table names {value}, which is not fetched: download it, and name the file")
    beside = folder / value
    return beside if beside.exists() or not Path(value).exists() else Path(value)


def content(source: bytes | Path | None, name: str) -> bytes | None:
    """The bytes themselves. Raises `UnreadableImage`, which names the sample, for a file that cannot be read."""
    if not isinstance(source, Path):
        return source
    try:
        return source.read_bytes()
    except OSError as error:
        raise UnreadableImage(name, f"{source}: {error.strerror}") from error


def _require(wanted: str, columns: Sequence[str], where: str) -> str:
    if wanted not in columns:
        raise DiffcernError(f"{where} has no column {wanted!r}; it has {', '.join(columns)}.")
    return wanted


def _is_bytes(feature: Any) -> bool:
    return isinstance(feature, Mapping) and feature.get("dtype") in ("binary", "large_binary")


def _type(features: Features, column: str) -> str | None:
    feature = features.get(column)
    return feature.get("_type") if isinstance(feature, Mapping) else None  # a list feature is a plain list
