"""ImageNet's validation images and the test sets that share its classes, in the layouts they are published in.

What class a folder holds is read from its name, never from its place among the others: ImageNet-V2's folders "0", "1",
"10", "100" ... in string order, or 200 folders counted from 0, would give labels that are wrong without an error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path

from diffcern.data.base import Accepts, Sample, Subset
from diffcern.data.folder import ImageFolder, some
from diffcern.errors import DiffcernError


@dataclass(frozen=True)
class ClassList:
    """The classes of a data set in their order: the images of class k lie in the folder `folders[k]`.

    names, ids, accepts: as `Dataset.class_names`, `class_ids` and `accepts`. left_out: folders that belong to the data
    set but to none of these classes.
    """

    folders: tuple[str, ...]
    names: tuple[str, ...]
    ids: tuple[str, ...] = ()
    accepts: Accepts = None
    left_out: frozenset[str] = frozenset()


class ClassFolders:
    """The images in the class folders below `root`, whose classes and their order are known beforehand.

    ids: POSIX paths relative to `root` ("n01440764/ILSVRC2012_val_00000293.JPEG"). A class whose folder is missing
    keeps its index. max_side, border: see `images.decode`.

    Raises `DiffcernError` as `ImageFolder` does, for a folder that is none of the data set's, and where all images lie
    in folders that are left out.
    """

    def __init__(
        self, root: str | Path, name: str, classes: ClassList, max_side: int | None = None, border: int = 0
    ) -> None:
        images = ImageFolder(root, max_side, labelled=True, border=border)
        index = {folder: k for k, folder in enumerate(classes.folders)}
        known = index.keys() | classes.left_out
        strange = [folder for folder in images.class_names if folder not in known]
        if strange:
            raise DiffcernError(
                f"{root} has folders that are no class of {name}: {some(strange)}; the class folders of {name} are "
                f"called {some(classes.folders)}. Give the folder that holds them."
            )
        folders = [images.class_names[target] for target in images.targets]
        kept = [row for row, folder in enumerate(folders) if folder in index]
        if not kept:
            raise DiffcernError(f"{root} has images, but none in a class folder ({some(classes.folders)}).")
        self.name = name
        self.class_names = classes.names
        self.class_ids = classes.ids
        self.accepts = classes.accepts
        self._images = Subset(images, kept)
        self.ids: Sequence[str] = self._images.ids
        self.targets: Sequence[int] = [index[folders[row]] for row in kept]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        sample = self._images[index]
        return Sample(sample.id, sample.image, self.targets[index])


def imagenet(variant: str, root: str | Path, max_side: int | None = None) -> ClassFolders:
    """One of `VARIANTS` below `root`. Raises `DiffcernError` for a folder that is none of its classes."""
    return ClassFolders(Path(root).expanduser(), variant, VARIANTS[variant](), max_side)


def by_id() -> ClassList:
    """The 1,000 classes of ImageNet (ILSVRC 2012), in folders named by WordNet id."""
    from diffcern.labels import imagenet_labels  # timm, slow to import, and only needed here

    names, ids = imagenet_labels()
    assert ids is not None
    return ClassList(ids, names, ids)


def by_number() -> ClassList:
    """The 1,000 classes in folders named "0" to "999" by their index (Recht et al. 2019, arXiv 1902.10811)."""
    classes = by_id()
    return ClassList(tuple(str(k) for k in range(len(classes.ids))), classes.names, classes.ids)


def some_by_id(synsets: str) -> ClassList:
    """The classes that timm lists in the file `synsets`, in ImageNet's order and under the same names."""
    listed = set(files("timm.data").joinpath("_info", synsets).read_text().split())
    classes = by_id()
    kept = [k for k, id_ in enumerate(classes.ids) if id_ in listed]
    ids = tuple(classes.ids[k] for k in kept)
    return ClassList(ids, tuple(classes.names[k] for k in kept), ids)


VARIANTS: dict[str, Callable[[], ClassList]] = {
    "imagenet": by_id,  # the validation images, moved into class folders
    "imagenet-a": partial(some_by_id, "imagenet_a_synsets.txt"),  # Hendrycks et al. 2021, arXiv 1907.07174
    "imagenet-r": partial(some_by_id, "imagenet_r_synsets.txt"),  # Hendrycks et al. 2021, arXiv 2006.16241
    "imagenet-sketch": by_id,  # Wang et al. 2019, arXiv 1905.13549
    "imagenet-v2": by_number,
}
