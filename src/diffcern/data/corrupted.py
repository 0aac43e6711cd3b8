"""ImageNet-C and CIFAR-C as published: corruptions that were applied once, by their authors, and stored.

Hendrycks and Dietterich 2019, arXiv 1903.12261. `corruptions` applies the same ones to any image, with other random
numbers. An image has the same id under every corruption and severity, so that one subset serves them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from diffcern.data.base import Accepts, Sample
from diffcern.data.imagenet import ClassFolders, by_id
from diffcern.errors import DiffcernError, UsageError, unknown

SEVERITIES = ("1", "2", "3", "4", "5")
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FINE_LABELS = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale
willow_tree wolf woman worm
"""
CIFAR100 = tuple(FINE_LABELS.split())


def imagenet_c(place: str | Path, max_side: int | None = None) -> ClassFolders:
    """ImageNet-C of one corruption and severity: place is ROOT/CORRUPTION/SEVERITY, above folders by WordNet id.

    The images are stored at 224 x 224, already cropped. ids: as of the ImageNet validation images they were made from,
    "n01440764/ILSVRC2012_val_00000293.JPEG". Raises `UsageError` that lists what ROOT holds for an unknown corruption
    or severity, `DiffcernError` as `ClassFolders` does.
    """
    root, corruption, severity = _split(place)
    folders = [folder for folder in root.iterdir() if folder.is_dir()]
    _require("corruption", corruption, (f.name for f in folders if any((f / s).is_dir() for s in SEVERITIES)), root)
    there = (s for s in SEVERITIES if (root / corruption / s).is_dir())
    _require("severity", severity, there, root / corruption)
    return ClassFolders(root / corruption / severity, f"imagenet-c/{corruption}/{severity}", by_id(), max_side)


class CifarC:
    """CIFAR-10-C or CIFAR-100-C of one corruption and severity: place is ROOT/CORRUPTION/SEVERITY.

    ROOT/CORRUPTION.npy holds `[50000, 32, 32, 3]` uint8: the 10,000 test images at severity 1, then at 2, up to 5, and
    labels.npy a label for each row. The array stays on disk; a row is read when it is asked for. ids: the row of the
    test image, "00000" to "09999". class_names: given, else those of CIFAR-10 or CIFAR-100 (its fine labels, in
    alphabetical order), whichever has as many as there are distinct labels.

    Raises `UsageError` that lists what exists for an unknown corruption or severity; `DiffcernError` for arrays that
    are missing, damaged or of another layout, and for labels without a name.
    """

    class_ids: tuple[str, ...] = ()
    accepts: Accepts = None

    def __init__(self, place: str | Path, class_names: Sequence[str] | None = None) -> None:
        root, corruption, severity = _split(place)
        _require("corruption", corruption, (f.stem for f in root.glob("*.npy") if f.stem != "labels"), root)
        _require("severity", severity, SEVERITIES, root)
        self._path = root / f"{corruption}.npy"
        images, labels = _array(self._path), _array(root / "labels.npy")
        if images.dtype != np.uint8 or images.shape[1:] != (32, 32, 3) or len(images) % len(SEVERITIES):
            raise DiffcernError(
                f"{self._path} holds {images.dtype} {list(images.shape)}; CIFAR-C holds uint8 [5 x N, 32, 32, 3]."
            )
        if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
            raise DiffcernError(
                f"{root}/labels.npy holds {labels.dtype} {list(labels.shape)}, not one integer for each of the "
                f"{len(images)} images of {self._path.name}."
            )
        by_severity = labels.reshape(len(SEVERITIES), -1)
        if (by_severity != by_severity[0]).any():
            raise DiffcernError(
                f"{root}/labels.npy does not repeat the same labels for each of the five severities; the rows of "
                "CIFAR-C are ordered by severity first. Fetch the published arrays again."
            )
        self._start = (int(severity) - 1) * by_severity.shape[1]
        self.targets: Sequence[int] = by_severity[0].tolist()
        self.class_names = _names(class_names, self.targets, root)
        self.ids: Sequence[str] = [f"{row:05d}" for row in range(len(self.targets))]
        self.name = f"cifar{len(self.class_names)}-c/{corruption}/{severity}"

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Sample:
        row = range(len(self))[index]
        # mapped anew, in under 1 ms: an open map would be pickled, all 150 MB of it, for every worker of a loader
        pixels = torch.from_numpy(np.array(_array(self._path)[self._start + row]))
        return Sample(self.ids[row], pixels.permute(2, 0, 1).contiguous().float().div_(255), self.targets[row])


def _split(place: str | Path) -> tuple[Path, str, str]:
    """ROOT, CORRUPTION and SEVERITY of their path."""
    path = Path(place).expanduser()
    root = path.parent.parent
    if not root.is_dir():
        raise DiffcernError(f"no such folder: {root}; give ROOT/CORRUPTION/SEVERITY, as in {root}/fog/3.")
    return root, path.parent.name, path.name


def _require(kind: str, name: str, known: Iterable[str], where: Path) -> None:
    known = list(known)
    if name not in known:
        raise UsageError(f"{where}: {unknown(kind, name, known)} Give ROOT/CORRUPTION/SEVERITY.")


def _array(path: Path) -> NDArray[np.generic]:
    """The array in a .npy file, mapped into memory."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise DiffcernError(f"no such file: {path}; CIFAR-C holds CORRUPTION.npy files beside labels.npy.") from error
    except (OSError, ValueError, EOFError) as error:
        raise DiffcernError(f"cannot read {path}: truncated or not a NumPy array ({error}).") from error
    if not isinstance(array, np.ndarray):
        raise DiffcernError(f"cannot read {path}: a .npz archive, not a NumPy array. Unpack it first.")
    return array


def _names(given: Sequence[str] | None, targets: Sequence[int], where: Path) -> tuple[str, ...]:
    count = len(set(targets))
    names = tuple(given or next((names for names in (CIFAR10, CIFAR100) if len(names) == count), ()))
    if not names:
        raise DiffcernError(f"{where} has {count} distinct labels, neither CIFAR's 10 nor 100; give class_names.")
    if not all(0 <= target < len(names) for target in targets):
        raise DiffcernError(
            f"{where} has labels from {min(targets)} to {max(targets)}, but {len(names)} class names, from 0 on."
        )
    return names
