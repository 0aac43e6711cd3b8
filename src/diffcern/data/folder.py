"""A folder of images as it lies on a disk: nested, of mixed formats and sizes, other files in between."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from diffcern.data import columns
from diffcern.data.base import Accepts, Sample
from diffcern.data.formats import holds_image
from diffcern.data.images import decode
from diffcern.data.names import unique
from diffcern.errors import DiffcernError

SPLITS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}
LIKE = ".jpg, .png, .webp, .tif, .heic, ..."


class ImageFolder:
    """All images below `root` (or the one image that `root` is), in natural order of their relative paths.

    ids: relative POSIX paths. What is an image is told by `formats.holds_image`; one that cannot be decoded here (a
    camera's raw file, say) is in the data set all the same, so that it is named and counted. Hidden files and folders
    and files of other kinds are passed over; linked folders are followed. max_side, border: see `images.decode`.

    labelled: the first-level folder is the class; class_names are those folders' names in plain string order
    (as in torchvision: "10" before "2"), or the ones given, which must hold every folder's name. Unlabelled,
    all targets are -1 and class_names are the ones given. class_ids: the class_names, where they are WordNet ids.

    Raises `DiffcernError` for a missing path, a folder without images, and images outside a class folder.
    """

    accepts: Accepts = None

    def __init__(
        self,
        root: str | Path,
        max_side: int | None = None,
        labelled: bool = False,
        class_names: Sequence[str] | None = None,
        border: int = 0,
    ) -> None:
        place = Path(root).expanduser()
        if not place.exists():
            raise DiffcernError(f"no such file or folder: {place}. Check the path.")
        if place.is_file() and not holds_image(place):
            raise DiffcernError(
                f"{place} is not an image, neither by its suffix ({LIKE}) nor by how it begins. Convert it to PNG."
            )
        self.name = place.absolute().name
        self._base = place.parent if place.is_file() else place
        self._max_side = max_side
        self._border = border
        paths = [place.name] if place.is_file() else _find(place)
        if not paths:
            raise DiffcernError(
                f"no images below {place}: looked for suffixes ({LIKE}), in any case, and at how files begin."
            )
        self.ids = unique(map(_id, paths), str(place))
        self._odd = {row: path for row, (path, name) in enumerate(zip(paths, self.ids, strict=True)) if path != name}
        self.class_names = tuple(class_names or ())
        self.targets: Sequence[int] = [-1] * len(paths)
        if labelled:
            folders = _class_folders(paths, place)
            _check_splits(set(folders), place)
            self.class_names = self.class_names or tuple(sorted(set(folders)))
            index = {name: i for i, name in enumerate(self.class_names)}
            strange = sorted(set(folders) - index.keys())
            if strange:
                raise DiffcernError(
                    f"{place} has folders that are not among the class names: {some(strange)}; "
                    f"the class names are {some(self.class_names)}."
                )
            self.targets = [index[folder] for folder in folders]
        self.class_ids = columns.wordnet_ids(self.class_names)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        row = range(len(self))[index]
        name = self.ids[row]
        return Sample(name, decode(self.file(row), name, self._max_side, self._border), self.targets[row])

    def file(self, index: int) -> Path:
        """The file that holds the image of a row."""
        return self._base / self._odd.get(index, self.ids[index])

    def content(self, index: int) -> bytes | Path | None:
        """Where the encoded image of a row is."""
        return self.file(index)


def _find(root: Path) -> list[str]:
    """Relative POSIX paths of the images below `root`, in natural order."""
    try:
        return sorted((path.relative_to(root).as_posix() for path in _walk(root)), key=_natural)
    except OSError as error:  # passing over a folder in silence would change results
        raise DiffcernError(f"cannot list {error.filename}: {error.strerror}.") from error


def _walk(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    real = folder.resolve()
    if real in above:  # a link back up, which would be walked for ever
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _walk(folder / entry.name, (*above, real))
            elif holds_image(folder / entry.name):
                yield folder / entry.name


def _natural(path: str) -> str:
    """Sort key with numbers in numeric order: each behind its length, and 0 ends what stands before it, as no path has
    that sign. The plain path decides between "1" and "01"."""
    text = re.sub(r"0*([0-9]+)", lambda number: f"\0{chr(len(number[1]))}{number[1]}", path)
    return f"{text}\0\0{path}"


def _check_splits(folders: set[str], root: Path) -> None:
    """Raises DiffcernError where the folders are the splits of a data set, and not its classes."""
    if len(folders) > 1 and {folder.lower() for folder in folders} <= SPLITS:
        raise DiffcernError(
            f"{root} holds splits ({', '.join(sorted(folders))}), and class folders are wanted: give one of them, "
            f"imagefolder:{root / min(folders)}."
        )


def some(names: Sequence[str]) -> str:
    """The first eight names, for a message."""
    return ", ".join([*names[:8], "…"] if len(names) > 8 else names)


def _id(path: str) -> str:
    """The path; bytes that are no UTF-8 are escaped, since an id is hashed and written to records."""
    return path.encode("utf-8", "backslashreplace").decode()


def _class_folders(paths: Sequence[str], root: Path) -> list[str]:
    stray = [path for path in paths if "/" not in path]
    if stray:
        raise DiffcernError(
            f"{len(stray)} images lie directly in {root} (first: {stray[0]}), where the first-level folder "
            f"is to be the class. Move them into class folders, or read them without labels: folder:{root}."
        )
    return [sys.intern(path.partition("/")[0]) for path in paths]
