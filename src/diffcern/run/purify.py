"""A folder of purified images: PNG files named after their inputs, and a sheet of some before and after."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor
from torchvision.utils import make_grid

from diffcern.claims import changed, listed
from diffcern.data import Dataset, Sample, UnreadableImage, decode, encode_png, readable
from diffcern.errors import DiffcernError
from diffcern.files import write_whole, writing
from diffcern.purifier import Purifier
from diffcern.resizing import View, interpolate, views_of
from diffcern.run import manifest
from diffcern.run.digests import of_images
from diffcern.run.storage import LocalFolder
from diffcern.tasks.base import resized
from diffcern.texts import read_json, read_text

SETTINGS = "purify.json"
SOURCES = "sources.jsonl"
SHEET = "before-after.png"


def check_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Writes down what the folder's images are made with; DiffcernError where it holds images made otherwise."""
    text = json.dumps(settings, indent=1, sort_keys=True, default=str)
    known = folder / SETTINGS
    if known.exists() and known.read_bytes() != text.encode():
        before = read_json(known)
        what = listed(changed(before, settings)) if isinstance(before, dict) else "it is no JSON object"
        raise DiffcernError(f"{folder} holds images that were purified otherwise ({known}: {what}): give another --out")
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(known, text.encode())


class Sources:
    """What the images of a folder were made of, a line for each: those of an older version have none."""

    def __init__(self, folder: Path, dataset: Dataset) -> None:
        self._file = folder / SOURCES
        self._now = of_images(dataset, self._file)
        self._known: dict[str, str] = {}
        for line in read_text(self._file).splitlines() if self._file.is_file() else ():
            with contextlib.suppress(ValueError, KeyError, TypeError):  # the last one, torn
                row = json.loads(line)
                self._known[row["id"]] = row["digest"]

    def check(self, ids: Iterable[str]) -> None:
        """Raises DiffcernError where an image is another one than what was purified."""
        other = [id for id in ids if self._known.get(id, "") not in ("", self._now(id))]
        if other:
            raise DiffcernError(
                f"{self._file.parent} holds what other images of the same names came to ({listed(other)}): "
                "give another --out, or delete these files"
            )

    def add(self, ids: Iterable[str]) -> None:
        """These are about to be written."""
        with self._file.open("a") as file:
            file.writelines(json.dumps({"id": id, "digest": self._now(id)}) + "\n" for id in ids)


def file_names(ids: Sequence[str]) -> dict[str, PurePosixPath]:
    """A PNG file below the output folder for each id: "cats/1.jpg" -> "cats/1.png", or "cats/1.jpg.png" where there
    is a "cats/1.webp" too."""
    places = {id: PurePosixPath(*(part for part in PurePosixPath(id).parts if part not in ("/", ".."))) for id in ids}
    short = {id: place.with_suffix(".png") for id, place in places.items()}
    count = Counter(short.values())
    return {
        id: place if count[place] == 1 else place.with_name(f"{places[id].name}.png") for id, place in short.items()
    }


@dataclass(frozen=True)
class Purification:
    """Where images are purified. view: what is purified of each: its "centre", in the prior's resolution, or the
    "whole", in its own. batch_size: images at a time."""

    dataset: Dataset
    purifier: Purifier
    view: View
    seed: int
    batch_size: int
    device: torch.device

    def __call__(self, rows: Iterable[int]) -> Iterator[dict[str, Any]]:
        """Of these rows of the data set the ids, PNG files and errors."""
        given = readable(self.dataset, rows)
        while batch := list(islice(given, self.batch_size)):
            samples = [item for item in batch if isinstance(item, Sample)]
            errors = [item for item in batch if isinstance(item, UnreadableImage)]
            yield from ({"id": error.name, "png": b"", "error": error.reason} for error in errors)
            if not samples:
                continue
            views = views_of([sample.image.to(self.device) for sample in samples], self.view)
            images = self.purifier(views, [sample.id for sample in samples], self.seed)
            for sample, image in zip(samples, images.cpu(), strict=True):
                if self.view == "whole":
                    image = resized(image[None], (sample.image.shape[-2], sample.image.shape[-1]))[0].clamp(0, 1)
                yield {"id": sample.id, "png": encode_png(image), "error": None}


class PurifiedFolder:
    """The images of a data set in a folder, and which of them are not there yet.

    settings: what they are made with. Raises DiffcernError where what is there was made otherwise, or of other images.
    """

    def __init__(self, folder: Path, dataset: Dataset, settings: Mapping[str, Any]) -> None:
        if (folder / manifest.NAME).exists():
            raise DiffcernError(f"{folder} holds shards: give --form as it was, or another --out")
        with contextlib.ExitStack() as held:
            held.enter_context(writing(folder))
            check_settings(folder, settings)
            self.folder, self.names, self.sources = folder, file_names(dataset.ids), Sources(folder, dataset)
            done = {id for id, name in self.names.items() if (folder / name).exists()}
            self.sources.check(sorted(done))
            self._held = held.pop_all()
        self.storage = LocalFolder(folder)
        self.todo: list[Sequence[int]] = [[row for row, id in enumerate(dataset.ids) if id not in done]]
        self.there = len(done)

    def add(self, made: Mapping[str, Any]) -> dict[str, Any]:
        """Writes an image of a `Purification`: its id, file and error."""
        if made["error"]:
            return {"id": made["id"], "file": None, "error": made["error"]}
        self.sources.add([made["id"]])
        path = self.folder / self.names[made["id"]]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, made["png"])
        return {"id": made["id"], "file": str(self.names[made["id"]]), "error": None}

    def finish(self) -> dict[str, Path]:
        """Where the images are, by id."""
        return {id: self.folder / name for id, name in self.names.items()}

    def close(self) -> None:
        """Lets go of it."""
        self._held.close()

    @property
    def skipped(self) -> int:
        """None of those that are there."""
        return 0


def sheet(dataset: Dataset, folder: Path | str, view: View, made: Mapping[str, Path | bytes], count: int = 24) -> bytes:
    """A picture of the first images and what became of them, side by side, in squares. made: purified ones by id, of
    some, from that folder."""
    pairs: list[Tensor] = []
    for item in readable(dataset, (row for row, id in enumerate(dataset.ids) if id in made)):
        if isinstance(item, UnreadableImage):
            continue
        picture = made[item.id]
        try:
            after = decode(picture, item.id)
        except UnreadableImage as error:
            where = picture if isinstance(picture, Path) else f"{item.id} in {folder}"
            raise DiffcernError(f"{where} is damaged ({error.reason}): delete it, and it is made again") from error
        side = min(after.shape[-2:]) if not pairs else pairs[0].shape[-1]
        pairs += [
            interpolate(image[None], (side, side), "bilinear")[0] for image in (views_of([item.image], view)[0], after)
        ]
        if len(pairs) == 2 * count:
            break
    if not pairs:
        raise DiffcernError("no image could be read")
    enlarged = max(1, 96 // pairs[0].shape[-1])  # small images in whole pixels
    tiles = torch.stack(pairs).repeat_interleave(enlarged, -1).repeat_interleave(enlarged, -2)
    grid = make_grid(tiles, nrow=8 if len(pairs) > 8 else 2, padding=2, pad_value=1.0)
    return encode_png(grid.clamp(0, 1))
