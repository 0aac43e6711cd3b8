"""What `diffcern align` made a folder with: written before its first image, and read by the method that uses it.

Knows nothing about how the images and the predictor are made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from diffcern.claims import changed, listed
from diffcern.configs import FORBID, read_config
from diffcern.errors import DiffcernError, UsageError
from diffcern.files import check_folder, write_whole
from diffcern.fingerprints import fingerprint
from diffcern.predictors import Predictor
from diffcern.priors import Prior

FILE = "align.json"
TRAINS = "`diffcern align` writes such a file"
SINCE: dict[str, dict[str, Any]] = {  # options that were added, and what folders without them were made with
    "diffpure": {"clip": True},
    "dda": {"border": "inside", "bounded": False},
    "gda": {"scaled": False, "mixed": False},
}
GENERATED, ALIGNED, PREDICTOR = "generated", "aligned", "predictor"  # folders beside it


@dataclass(frozen=True)
class Alignment:
    """predictor, generator, prior: names; fingerprints: of the three. method, options: the purification's, all of them.

    classes: the predictor's; per_class: images of each, 1 where captions or maps say what to draw. sampling: the
    settings of `sampling.sample`. resynthesis: whether generated images were purified before the predictor saw them.
    recipe: of the fine-tuning. prompts: of each class, or captions, where the generator reads text. maps: which ones
    images were drawn of, and for which task (`train.align_maps.ChosenMaps.settings`); empty where of none.
    """

    __pydantic_config__ = FORBID

    predictor: str
    generator: str
    prior: str
    fingerprints: dict[str, str]
    method: str
    options: dict[str, Any]
    classes: tuple[str, ...]
    per_class: int
    sampling: dict[str, Any]
    resynthesis: bool
    recipe: dict[str, Any]
    seed: int
    prompts: tuple[tuple[str, ...], ...] = ()
    maps: dict[str, Any] = field(default_factory=dict)

    def begin(self, folder: Path) -> None:
        """Writes itself down. DiffcernError where the folder holds other things, or was begun with other settings."""
        check_folder(folder)
        text = json.dumps(asdict(self), indent=1)
        if (folder / FILE).exists():
            now = {**asdict(self), "options": _completed(self.method, self.options)}
            if changes := changed(asdict(read_alignment(folder)), now):
                raise DiffcernError(
                    f"{folder} was aligned with other settings ({listed(changes)}): use them, or another --out"
                )
            return
        others = sorted(path.name for path in folder.glob("*") if not path.name.startswith("."))
        if others:
            raise DiffcernError(f"{folder} holds {', '.join(others[:3])} and no {FILE}: give another --out")
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / FILE, f"{text}\n".encode())

    def check(self, predictor: Predictor, prior: Prior) -> None:
        """Raises UsageError unless these are the predictor and the prior that the folder was made with."""
        if predictor.class_names != self.classes:
            ours, theirs = (f"{len(names)}: {', '.join(names[:6])}" for names in (self.classes, predictor.class_names))
            raise UsageError(
                f"aligned for the classes of {self.predictor} ({ours}), and the predictor's are others, or in another "
                f"order ({theirs}): run `diffcern align` with --labels"
            )
        for what, model in {"predictor": predictor, "prior": prior}.items():
            known = self.fingerprints.get(what)
            if fingerprint(model) != known:
                raise UsageError(
                    f"aligned with the {what} {getattr(self, what)} ({known}), and this is another "
                    f"or in another precision ({fingerprint(model)}): give that one, or run `diffcern align` with this"
                )


def read_alignment(folder: Path) -> Alignment:
    """Raises UsageError where the folder was not made by `diffcern align`, DiffcernError where its file is damaged."""
    path = folder / FILE
    if not path.is_file():
        raise UsageError(f"{folder} was not made by `diffcern align`: it has no {FILE}")
    alignment: Alignment = read_config(path, Alignment, TRAINS)
    maps = dict(alignment.maps)
    if maps.get("class_names"):  # as they were typed, once
        maps["class_names"] = ",".join(name.strip() for name in maps["class_names"].split(","))
    return replace(alignment, options=_completed(alignment.method, alignment.options), maps=maps)


def _completed(method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """With the options that there were not yet when a folder was made."""
    return {**SINCE.get(method, {}), **options}
