"""Any predictor with other weights: `adapted.json` names the predictor, `model.safetensors` holds the weights."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from diffcern.configs import FORBID, Name, Names, read_config
from diffcern.errors import DiffcernError
from diffcern.files import check_files, write_whole
from diffcern.predictors.base import Predictor
from diffcern.texts import is_file
from diffcern.weights import read_weights, write_weights

CONFIG, WEIGHTS = "adapted.json", "model.safetensors"


@dataclass(frozen=True)
class AdaptedConfig:
    """What `adapted.json` holds. base: the name of a predictor; class_names: what it answers with, none for depth."""

    __pydantic_config__ = FORBID

    base: Name
    class_names: Names


def save_adapted(predictor: Predictor, base: str, folder: Path) -> None:
    """Writes the weights, and last what they belong to; base: the name of the predictor that they were adapted from."""
    folder.mkdir(parents=True, exist_ok=True)
    place = Path(base).expanduser()
    config = AdaptedConfig(str(place.absolute()) if place.is_dir() else base, predictor.class_names)
    write_weights(predictor.model.state_dict(), folder / WEIGHTS)
    write_whole(folder / CONFIG, (json.dumps(asdict(config), indent=1) + "\n").encode())


def read_base(folder: Path) -> tuple[str, tuple[str, ...]]:
    """The name of the predictor that was adapted, and the classes that it answers with, none for depth.

    Raises DiffcernError, also where a base leads back to the folder itself.
    """
    check_files("predictor", folder, (CONFIG, WEIGHTS))
    config = found = _read(folder)
    seen, place = {folder.resolve()}, Path(found.base).expanduser()
    while is_file(str(place / CONFIG)):
        if place.resolve() in seen:
            raise DiffcernError(
                f"{folder / CONFIG} names {config.base} as its base, which leads back to it: restore that file"
            )
        seen.add(place.resolve())
        found = _read(place)
        place = Path(found.base).expanduser()
    return config.base, config.class_names


def _read(folder: Path) -> AdaptedConfig:
    config: AdaptedConfig = read_config(folder / CONFIG, AdaptedConfig, "`diffcern align` writes such a file")
    return config


def load_weights(predictor: Predictor, folder: Path) -> Predictor:
    """Puts the folder's weights into the predictor that they were adapted from, in place.

    Raises DiffcernError for weights that do not fit.
    """
    check_files("predictor", folder, (CONFIG, WEIGHTS))
    read_weights(predictor.model, folder / WEIGHTS, f"the predictor that {CONFIG} names")
    return predictor
