"""ObjectNet (Barbu et al. 2019): household objects from odd angles; 113 of its 313 classes overlap with ImageNet's.

Published as images/FOLDER/*.png beside mappings/*.json. A class may overlap with several of ImageNet's ("Chair": barber
chair, folding chair, rocking chair), any of which is then a right answer.
"""

from __future__ import annotations

from pathlib import Path

from diffcern.data.folder import some
from diffcern.data.imagenet import ClassFolders, ClassList
from diffcern.errors import DiffcernError
from diffcern.texts import read_json

BORDER = 2  # red pixels around every image, there to tell test images from training images
FOLDERS = "folder_to_objectnet_label.json"  # {"still_camera": "Still Camera", ...}
OVERLAP = "objectnet_to_imagenet_1k.json"  # {"Still Camera": "Polaroid camera, Polaroid Land camera; reflex camera"}


def objectnet(root: str | Path, max_side: int | None = None) -> ClassFolders:
    """The images of the classes that overlap with ImageNet, without their red border.

    root: the folder that holds images/ and mappings/. class_names: ObjectNet's own ("Still Camera"), ordered by folder.
    accepts: the WordNet ids of the ImageNet classes that each overlaps with.

    Raises `DiffcernError` for missing or damaged mappings and for folders that the mappings do not name.
    """
    place = Path(root).expanduser()
    return ClassFolders(place / "images", "objectnet", _classes(place / "mappings"), max_side, BORDER)


def _classes(mappings: Path) -> ClassList:
    labels, overlap = _read(mappings / FOLDERS), _read(mappings / OVERLAP)
    lost = [label for label in overlap if label not in labels.values()]
    if lost:
        raise DiffcernError(f"{mappings}: {OVERLAP} speaks of classes that {FOLDERS} does not hold: {some(lost)}.")
    synsets = _synsets()
    folders = sorted(folder for folder, label in labels.items() if label in overlap)
    names = tuple(labels[folder] for folder in folders)
    accepts = []
    for name in names:
        answers = overlap[name].split("; ")
        unclear = [answer for answer in answers if len(synsets.get(answer, ())) != 1]
        if unclear:
            raise DiffcernError(f"{mappings / OVERLAP}: {name!r} names no single ImageNet class: {some(unclear)}.")
        accepts.append(tuple(synsets[answer][0] for answer in answers))
    return ClassList(tuple(folders), names, accepts=tuple(accepts), left_out=frozenset(labels) - frozenset(folders))


def _synsets() -> dict[str, list[str]]:
    """WordNet ids of ImageNet's classes by all their synonyms, as the mappings write them ("bucket, pail").

    The distribution's detour, from name to a line of imagenet_to_label_2012_v2 to pytorch_to_imagenet_2012_id.json, is
    not taken: its lines count from 0 or from 1 depending on who reads it, and a name says the same.
    """
    from timm.data import ImageNetInfo  # slow to import, and only needed here

    info = ImageNetInfo()
    found: dict[str, list[str]] = {}
    for name, id_ in zip(info.label_descriptions(), info.label_names(), strict=True):
        found.setdefault(name, []).append(id_)
    return found


def _read(path: Path) -> dict[str, str]:
    """A published mapping from names to names."""
    try:
        content = read_json(path)
    except DiffcernError as error:
        raise DiffcernError(f"{error}. Give the folder that holds ObjectNet's images/ and mappings/.") from error
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise DiffcernError(f"{path} is not ObjectNet's: it must map names to names.")
    return content
