"""Any predictor with other weights: `adapted.json` names the predictor, `model.safetensors` holds the weights."""

from __future__ import annotations

import json
from pathlib import Path

from diffcern.files import check_files, reading, write_whole
from diffcern.predictors.base import Predictor
from diffcern.weights import read_weights, write_weights

CONFIG, WEIGHTS = "adapted.json", "model.safetensors"


def save_adapted(predictor: Predictor, base: str, folder: Path) -> None:
    """Writes the weights, and last what they belong to; base: the name of the predictor that they were adapted from."""
    folder.mkdir(parents=True, exist_ok=True)
    place = Path(base).expanduser()
    config = {"base": str(place.absolute()) if place.is_dir() else base, "class_names": predictor.class_names}
    write_weights(predictor.model.state_dict(), folder / WEIGHTS)
    write_whole(folder / CONFIG, (json.dumps(config, indent=1) + "\n").encode())


def read_base(folder: Path) -> tuple[str, tuple[str, ...]]:
    """The name of the predictor that was adapted, and the classes that it answers with, none for depth.

    Raises DiffcernError.
    """
    check_files("predictor", folder, (CONFIG, WEIGHTS))
    with reading(folder / CONFIG, "`diffcern align` writes such a file"):
        config = json.loads((folder / CONFIG).read_text())
        return config["base"], tuple(config["class_names"])


def load_weights(predictor: Predictor, folder: Path) -> Predictor:
    """Puts the folder's weights into the predictor that they were adapted from, in place.

    Raises DiffcernError for weights that do not fit.
    """
    check_files("predictor", folder, (CONFIG, WEIGHTS))
    read_weights(predictor.model, folder / WEIGHTS, f"the predictor that {CONFIG} names")
    return predictor
