"""Folders of models: they answer as before they were damaged, or are refused."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffcern.predictors import load_predictor
from diffcern.priors import TextPrior, load_prior
from diffcern.priors.spatial import Maps
from diffcern.types import Condition

from . import tiny
from .damage import changed_value, damaged_bytes
from .outcomes import Case


def prior_answer(name: str) -> Tensor:
    prior = load_prior(name)
    noise = torch.randn(2, *prior.latent_shape, generator=torch.Generator().manual_seed(0))
    told = prior.prompts(tiny.CAPTIONS[:2]) if isinstance(prior, TextPrior) else Condition()
    if prior.class_names:
        told = prior.hypotheses()[:2]
    elif prior.spatial_shape:
        told = Condition(spatial=torch.full((2, *prior.spatial_shape), 0.5))
    found = prior(noise, torch.tensor([3, 900]).clamp(max=prior.num_timesteps - 1), told)
    return torch.cat([part.flatten() for part in (found.output, found.x0, found.eps, prior.encode(tiny.images()))])


def predictor_answer(name: str) -> Tensor:
    with torch.no_grad():
        return load_predictor(name)(tiny.images())


def clip_answer(name: str) -> Tensor:
    with torch.no_grad():
        return load_predictor(name, labels=tiny.NAMES)(tiny.images())


Answer = Callable[[str], Tensor]
DEPTH, SEGMENTATION = Maps("depth", (), 1.0, 9.0), Maps("segmentation", ("sky", "sea"))
OWN: dict[str, tuple[Callable[[Path], Path], Answer]] = {
    "dit": (tiny.prior, prior_answer),
    "unet": (lambda folder: tiny.prior(folder, "unet"), prior_answer),
    "depth prior": (lambda folder: tiny.prior(folder, maps=DEPTH, grey=True), prior_answer),
    "segmentation prior": (lambda folder: tiny.prior(folder, maps=SEGMENTATION), prior_answer),
    "captions": (tiny.captioned, prior_answer),
    "small-resnet": (tiny.predictor, predictor_answer),
    "segmenter": (lambda folder: tiny.predictor(folder, "small-unet", "segmentation"), predictor_answer),
    "depth": (lambda folder: tiny.predictor(folder, "small-unet", "depth"), predictor_answer),
    "mae": (tiny.mae, predictor_answer),
    "adapted": (tiny.adapted, predictor_answer),
}
OTHERS: dict[str, tuple[Callable[[Path], Path], Answer]] = {  # of formats that the libraries read
    "vit": (tiny.vit, predictor_answer),
    "clip": (tiny.clip, clip_answer),
    "hub": (tiny.hub_dit, prior_answer),
}


class ModelFolders:
    """One file of a folder is damaged, left out, or belongs to another model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: dict[str, Path] = {}
        self.answers: dict[str, Tensor] = {}

    def _ready(self, name: str) -> Path:
        """The whole folder of a model, made when it is first asked for."""
        if name not in self.made:
            make, answer = (OWN | OTHERS)[name]
            self.made[name] = make(self.folder / "whole" / name)
            self.answers[name] = answer(str(self.made[name]))
        return self.made[name]

    def case(self, rng: Random) -> Case:
        name = rng.choice([*OWN, *OWN, *OTHERS])
        whole = self._ready(name)
        files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.suffix in (".json", ".safetensors"))
        if rng.random() < 0.03:
            return Case(f"{name}, whole", lambda: self._same(name, Path(), None), whole=True)
        file = rng.choice([*files, *(path for path in files if path.suffix == ".safetensors")])
        content = (whole / file).read_bytes()
        way = rng.random()
        what, changed = "left out", None
        if way < 0.05:
            pass
        elif way < 0.1:
            other = self._ready(rng.choice(list(OWN)))
            same = [path for path in other.rglob(f"*{file.suffix}") if path.is_file()]
            chosen = rng.choice(sorted(same))
            what, changed = f"is {chosen.relative_to(other.parent)}", chosen.read_bytes()
            lenient = file.suffix == ".json" and name in OTHERS  # it may be in order where it is now
            return Case(f"{name}, {file} {what}", lambda: self._same(name, file, changed, lenient))
        elif file.suffix == ".safetensors" and way < 0.7:
            what, tensors = tensors_of(load_file(whole / file), rng)
            return Case(f"{name}, {file}: {what}", lambda: self._same(name, file, tensors))
        elif file.suffix == ".json" and way < 0.8 and name in OWN:
            what, value = changed_value(json.loads(content), rng, is_damage)
            changed = json.dumps(value).encode()
        elif file.suffix == ".json" and way < 0.8:  # where the libraries' defaults are, the file says something else
            what, value = changed_value(json.loads(content), rng)
            said = json.dumps(value).encode()
            return Case(f"{name}, {file}: {what}", lambda: self._same(name, file, said, lenient=True))
        elif file.suffix == ".safetensors" and name in OTHERS:  # their numbers have no checksum
            start = 8 + int.from_bytes(content[:8], "little")
            what, head = damaged_bytes(content[:start], rng)
            changed = head + content[start:]
        elif file.suffix == ".json":
            what, changed = damaged_bytes(content, rng)
            if not is_broken(content, changed):
                what, changed = "left out", None
        else:
            what, changed = damaged_bytes(content, rng)
        return Case(f"{name}, {file} {what}", lambda: self._same(name, file, changed))

    def _same(self, name: str, file: Path, content: bytes | dict[str, Tensor] | None, lenient: bool = False) -> bool:
        """Whether the model answers as before; lenient: at all, with finite numbers."""
        place = self.folder / "damaged"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.made[name], place)
        if file != Path():
            (place / file).unlink()
        if isinstance(content, bytes):
            (place / file).write_bytes(content)
        elif isinstance(content, dict):
            save_file(content, place / file, metadata={"format": "pt"})
        answer = (OWN | OTHERS)[name][1](str(place))
        if lenient:  # of a prior, NaN is noticed where errors are compared
            return name == "hub" or bool(torch.isfinite(answer).all())
        return answer.shape == self.answers[name].shape and torch.equal(answer, self.answers[name])


def tensors_of(tensors: dict[str, Tensor], rng: Random) -> tuple[str, dict[str, Tensor]]:
    """The tensors of a file with one of them changed."""
    name = rng.choice(sorted(tensors))
    rest = {other: value for other, value in tensors.items() if other != name}
    value = tensors[name]
    way = rng.choice(
        ["left out", "renamed", "surplus", "shape", "shape", "whole numbers", "nan", "inf", "none", "empty"]
    )
    changed: dict[str, dict[str, Tensor]] = {
        "left out": rest,
        "renamed": {**rest, f"{name}{rng.choice(['_', '.x', ' '])}": value},
        "surplus": {**tensors, rng.choice(["x", "", f"{name}.x"]): torch.zeros(3)},
        "shape": {**rest, name: rng.choice([value[None], value.flatten()[:-1], torch.zeros(7, 3)]).contiguous()},
        "whole numbers": {**rest, name: (100 * value).int() if value.is_floating_point() else value.float()},
        "nan": {**rest, name: torch.full(value.shape, math.nan)},
        "inf": {**rest, name: torch.full(value.shape, math.inf)},
        "none": {},
        "empty": {**rest, name: torch.zeros(0)},
    }
    return f"{name} {way}", changed[way]


def is_damage(path: tuple[Any, ...], old: Any, new: Any) -> bool:
    """Whether a change is one that could be noticed: another name, another mean are those of another model."""
    key = next((part for part in reversed(path) if isinstance(part, str)), "")
    if isinstance(old, str) and isinstance(new, str) and new.strip() and key in ("class_names", "names"):
        return False
    if (isinstance(old, bool) and isinstance(new, bool)) or (key == "num_train_timesteps" and new in (1, 3)):
        return False
    if isinstance(old, int | float) and isinstance(new, int | float) and not isinstance(new, bool):
        return not (0 <= new <= 3 if key in ("mean", "std", "near", "far") else 0 <= new <= 1)
    return not (key in ("class_names",) and new is None and len(path) > 1)  # an adapted predictor may answer with fewer


def is_broken(before: bytes, after: bytes) -> bool:
    """Whether damaged bytes are no JSON any more, or say the same."""
    try:
        return bool(json.loads(after) == json.loads(before))
    except (ValueError, RecursionError):
        return True
