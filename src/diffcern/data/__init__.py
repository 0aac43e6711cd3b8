"""Data sets by name: images with ids and, where known, targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from diffcern.data import digit_groups, digits, imagenet, objectnet, scenes
from diffcern.data.base import Batch, Dataset, Sample, Subset, collate, readable, subset
from diffcern.data.corrupted import CifarC, imagenet_c
from diffcern.data.examples import PAIR_FORMS, QUESTION_FORMS, load_pairs, load_questions
from diffcern.data.file_list import FileList
from diffcern.data.folder import ImageFolder
from diffcern.data.formats import is_image
from diffcern.data.hub import HubImages
from diffcern.data.imagenet import VARIANTS, ClassFolders
from diffcern.data.images import UnreadableImage, check_pixels, decode, encode_png
from diffcern.data.pairs import MatchingExample, Pairs
from diffcern.data.parquet import ParquetImages
from diffcern.data.questions import Question, Questions
from diffcern.data.scenes import Scenes
from diffcern.data.webdataset import WebDataset
from diffcern.errors import DiffcernError, UsageError, unknown
from diffcern.files import is_url
from diffcern.plugins import PATH, announced, made
from diffcern.watching import doing

__all__ = [
    "DATASETS",
    "FORMS",
    "PAIR_FORMS",
    "QUESTION_FORMS",
    "Batch",
    "CifarC",
    "ClassFolders",
    "Dataset",
    "FileList",
    "HubImages",
    "ImageFolder",
    "MatchingExample",
    "Pairs",
    "ParquetImages",
    "Question",
    "Questions",
    "Sample",
    "Scenes",
    "Subset",
    "UnreadableImage",
    "WebDataset",
    "check_pixels",
    "collate",
    "decode",
    "encode_png",
    "is_image",
    "load_dataset",
    "load_pairs",
    "load_questions",
    "readable",
    "subset",
]

Names = Sequence[str] | None
DIGITS = {"digits": "test", **{f"digits/{split}": split for split in digits.SPLITS}}
EMBEDDED = (*DIGITS, *digit_groups.NAMES, *scenes.NAMES)


def load_dataset(
    name: str, class_names: Names = None, max_side: int | None = None, mask_names: Names = None
) -> Dataset:
    """The data set that `name` stands for: one of the forms in `DATASETS`, or an existing path.

    A path to a folder or an image is read without labels, a path that ends in .parquet as a table.
    class_names and max_side: as for the class that `DATASETS` leads to; mask_names: of the classes in its masks, for
    tables. Raises `UsageError` for an unknown name and for names where the data set has its own or no masks,
    `DiffcernError` for data that are missing or cannot be used.
    """
    with doing(f"reading the data {name}"):
        return _loaded(name, class_names, max_side, mask_names)


def _loaded(name: str, class_names: Names, max_side: int | None, mask_names: Names) -> Dataset:
    prefix, colon, rest = name.partition(":")
    if colon and prefix in DATASETS:
        if not rest:
            raise UsageError(f"nothing follows {prefix!r} in the data set name; the form is {FORMS[prefix]}.")
        if prefix in OWN_NAMES and (class_names is not None or mask_names is not None):
            raise UsageError(f"{name} has its own class names; give none.")
        if prefix in TABLES:
            return TABLES[prefix](rest, class_names, max_side, mask_names)
        _check_unmasked(name, mask_names)
        return DATASETS[prefix](rest, class_names, max_side)
    path = Path(name).expanduser()
    if path.suffix == ".parquet":
        return _parquet(name, class_names, max_side, mask_names)
    if path.exists():
        _check_unmasked(name, mask_names)
        return ImageFolder(path, max_side, class_names=class_names)
    if (brought := made("datasets", name, object)) is not None:
        return _brought(name, brought, class_names)
    if path.is_absolute() or name.startswith((".", "~")):
        raise DiffcernError(f"no such file or folder: {name}. Check the path.")
    mistake = unknown(
        "data set",
        name,
        [*(f"embedded:{known}" for known in EMBEDDED), *FORMS.values(), "PATH", *announced("datasets"), PATH],
    )
    raise mistake if colon else UsageError(f"no such file or folder: {name}; {mistake}")


def _brought(name: str, dataset: Any, class_names: Names) -> Dataset:
    """A data set of another package."""
    if class_names is not None:
        raise UsageError(f"{name} has its own class names; give none.")
    parts = ("name", "ids", "targets", "class_names", "class_ids", "accepts", "__len__", "__getitem__")
    if lacks := [part for part in parts if not hasattr(dataset, part)]:
        raise UsageError(f"{name} is no data set: it lacks {', '.join(lacks)}, see docs/extend.md")
    found: Dataset = dataset
    return found


def _embedded(rest: str, class_names: Names, max_side: int | None) -> Dataset:
    if rest not in EMBEDDED:
        raise unknown("embedded data set", rest, EMBEDDED)
    if rest in scenes.NAMES:
        return scenes.scenes(scenes.NAMES[rest], scenes.side_within(max_side))
    if rest in digit_groups.NAMES:
        return digit_groups.digit_groups(*digit_groups.NAMES[rest])
    return digits.digits(DIGITS[rest])  # 16 x 16 pixels, as groups: nothing to shrink to max_side


def _imagefolder(rest: str, class_names: Names, max_side: int | None) -> Dataset:
    return ImageFolder(rest, max_side, labelled=True, class_names=class_names)


def _folder(rest: str, class_names: Names, max_side: int | None) -> Dataset:
    return ImageFolder(rest, max_side, class_names=class_names)


def _check_unmasked(name: str, mask_names: Names) -> None:
    if mask_names is not None:
        raise UsageError(f"{name} has no masks whose classes could be named; a table can: {FORMS['parquet']}.")


def _parquet(rest: str, class_names: Names, max_side: int | None, mask_names: Names = None) -> Dataset:
    return ParquetImages(
        rest if is_url(rest) else Path(rest).expanduser(), class_names, max_side=max_side, mask_names=mask_names
    )


def _webdataset(rest: str, class_names: Names, max_side: int | None) -> Dataset:
    return WebDataset(rest if is_url(rest) else str(Path(rest).expanduser()), class_names, max_side)


def _files(rest: str, class_names: Names, max_side: int | None) -> Dataset:
    return FileList(rest, class_names, max_side)


def _hub(
    rest: str, class_names: Names, max_side: int | None, mask_names: Names = None, streamed: int | None = None
) -> Dataset:
    where, _, split = rest.partition(":")
    if not where or not split:
        raise UsageError(f"hf:{rest} names no split; the form is {FORMS['hf']}, as in hf:uoft-cs/cifar10:test.")
    parts = where.split("/", 2)  # owner/name/configuration
    config = parts[2] if len(parts) > 2 else None
    return HubImages("/".join(parts[:2]), split, config, class_names, max_side, streamed, mask_names)


def _stream(rest: str, class_names: Names, max_side: int | None, mask_names: Names = None) -> Dataset:
    named, _, count = rest.rpartition(":")
    if not count.isdecimal() or int(count) < 1:
        raise UsageError(f"hf-stream:{rest} names no number of images; the form is {FORMS['hf-stream']}.")
    return _hub(named, class_names, max_side, mask_names, int(count))


def _imagenet(variant: str, rest: str, class_names: Names, max_side: int | None) -> Dataset:
    return imagenet.imagenet(variant, rest, max_side)


def _imagenet_c(rest: str, class_names: Names, max_side: int | None) -> Dataset:
    return imagenet_c(rest, max_side)


def _cifar_c(rest: str, class_names: Names, max_side: int | None) -> Dataset:
    return CifarC(rest, class_names)  # 32 x 32 pixels: nothing to shrink to max_side


def _objectnet(rest: str, class_names: Names, max_side: int | None) -> Dataset:
    return objectnet.objectnet(rest, max_side)


OWN_NAMES = ("embedded", *VARIANTS, "imagenet-c", "objectnet")
TABLES: dict[str, Callable[[str, Names, int | None, Names], Dataset]] = {  # which can hold masks
    "parquet": _parquet,
    "hf": _hub,
    "hf-stream": _stream,
}
DATASETS: dict[str, Callable[[str, Names, int | None], Dataset]] = {
    "embedded": _embedded,
    "imagefolder": _imagefolder,
    "folder": _folder,
    "parquet": _parquet,
    "webdataset": _webdataset,
    "files": _files,
    "hf": _hub,
    "hf-stream": _stream,
    **{variant: partial(_imagenet, variant) for variant in VARIANTS},
    "imagenet-c": _imagenet_c,
    "cifar-c": _cifar_c,
    "objectnet": _objectnet,
}
FORMS = {
    "embedded": "embedded:NAME/SPLIT with digits, digit-pairs, digit-triples or scenes",
    "imagefolder": "imagefolder:PATH",
    "folder": "folder:PATH",
    "parquet": "parquet:PATH",
    "webdataset": "webdataset:PATH",
    "files": "files:LIST.txt",
    "hf": "hf:OWNER/NAME[/CONFIG]:SPLIT",
    "hf-stream": "hf-stream:OWNER/NAME[/CONFIG]:SPLIT:COUNT",
    **{variant: f"{variant}:ROOT" for variant in VARIANTS},
    "imagenet-c": "imagenet-c:ROOT/CORRUPTION/SEVERITY",
    "cifar-c": "cifar-c:ROOT/CORRUPTION/SEVERITY",
    "objectnet": "objectnet:ROOT",
}
