"""Any predictor with other weights: `adapted.json` names the predictor, `model.safetensors` holds the weights."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file, save

from diffcern.files import check_files, reading, write_whole
from diffcern.predictors.base import Predictor

CONFIG, WEIGHTS = "adapted.json", "model.safetensors"


def save_adapted(predictor: Predictor, base: str, folder: Path) -> None:
    """Writes the weights, and last what they belong to; base: the name of the predictor that they were adapted from."""
    folder.mkdir(parents=True, exist_ok=True)
    place = Path(base).expanduser()
    config = {"base": str(place.absolute()) if place.is_dir() else base, "class_names": predictor.class_names}
    state = {name: value.detach().cpu().clone().contiguous() for name, value in predictor.model.state_dict().items()}
    write_whole(folder / WEIGHTS, save(state))
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
    with reading(folder / WEIGHTS, f"Its weights belong to the predictor that {CONFIG} names"):
        predictor.model.load_state_dict(load_file(folder / WEIGHTS))
    return predictor
