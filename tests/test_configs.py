"""Every key of every JSON file of our own models: a value that it cannot have is named with the key, when it is read.

A file in which one value is replaced by a value of another type, or a key is left out or added, is refused, or the
model answers as before.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import caption_checkpoints
import pytest
import torch
from test_weights import FORMS, NAMES, prior
from torch import Tensor

from diffcern.alignment import read_alignment
from diffcern.configs import check_config
from diffcern.errors import DiffcernError, UsageError
from diffcern.predictors import Predictor, load_predictor
from diffcern.predictors.native import NativePredictorConfig
from diffcern.priors import TextPrior, load_prior
from diffcern.priors.native import NativeConfig, native_prior
from diffcern.priors.spatial import Maps
from diffcern.types import Condition

ODD = (None, "", "x", [], {}, [1, 2], {"a": 1}, True, 0, -1, 0.5, 10**12, 1e300, float("nan"))
SHARE = 1
IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def prior_answer(name: str) -> Tensor:
    prior = load_prior(name)
    x, t = torch.randn(2, *prior.latent_shape, generator=torch.Generator().manual_seed(0)), torch.tensor([3, 900])
    told = prior.prompts(["a photo of a tench.", "tench"]) if isinstance(prior, TextPrior) else Condition()
    if prior.class_names:
        told = prior.hypotheses()[:2]
    elif prior.spatial_shape:
        told = Condition(spatial=torch.full((2, *prior.spatial_shape), 0.5))
    noisy = prior(x, t, told)
    return torch.cat([noisy.output, noisy.x0, noisy.eps, prior.encode(IMAGES)])


def predictor_answer(name: str) -> Tensor:
    predictor = load_predictor(name)
    assert all(isinstance(known, str) for known in predictor.class_names)
    with torch.no_grad():
        return predictor(IMAGES)


def maps(folder: Path, kind: Any = "depth") -> None:
    torch.manual_seed(0)
    told = Maps("depth", (), 1.0, 9.0) if kind == "depth" else Maps("segmentation", ("sky", "sea"))
    made = native_prior(NativeConfig("dit", "x0", 8, 1, (), told), width=16, depth=1, heads=2, patch=4)
    for parameter in made.parameters():
        parameter.data.normal_(std=0.2)
    made.clean_errors = torch.linspace(0.1, 0.2, 101)
    made.save_pretrained(folder, torch.float32)


MODELS: dict[str, tuple[Callable[[Path], object], Callable[[str], Tensor]]] = {
    "dit": (FORMS["dit"].make, prior_answer),
    "unet": (FORMS["unet"].make, prior_answer),
    "flow": (prior("dit", "flow"), prior_answer),
    "depth": (maps, prior_answer),
    "segmentation": (lambda folder: maps(folder, "segmentation"), prior_answer),
    "captions": (caption_checkpoints.captioned, prior_answer),
    "small-resnet": (FORMS["small-resnet"].make, predictor_answer),
    "small-unet": (FORMS["small-unet"].make, predictor_answer),
    "mae": (FORMS["mae"].make, predictor_answer),
    "adapted": (FORMS["adapted"].make, predictor_answer),
}


def places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Of every value in a JSON document, of long lists the first."""
    yield path
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in list(items)[:3] if isinstance(content, list) else items:
        yield from places(value, (*path, key))


def replaced(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    changed = copy.deepcopy(content)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return changed


def without(content: Any, path: tuple[Any, ...]) -> Any:
    changed = copy.deepcopy(content)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return changed


def alike(value: Any, other: Any) -> bool:
    """Whether a value is of the other's kind: another name, another number are other models, and no damage."""
    numbers = (int, float)
    if isinstance(value, bool) or isinstance(other, bool):
        return isinstance(value, bool) and isinstance(other, bool)
    if isinstance(value, numbers) and isinstance(other, numbers):
        return 0 <= value <= 1 and 0 < other <= 1
    return type(value) is type(other) and isinstance(value, str) and bool(value)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_every_key_of_every_file(model, tmp_path):
    make, answer = MODELS[model]
    folder = tmp_path / "model"
    make(folder)
    expected = answer(str(folder))
    wrong, turn = [], 0
    for file in sorted(path for path in folder.rglob("*.json")):
        original = file.read_text()
        content = json.loads(original)
        step = 4 if file.name == "tokenizer.json" else 1  # a reader in Rust, which takes long to fail
        for path in list(places(content))[::step]:
            inner = content
            for key in path:
                inner = inner[key]
            turn += SHARE  # in turn, so that the suite is quick: `benchmarks/fuzz.py` tries them all
            values = [ODD[(turn + k) % len(ODD)] for k in range(SHARE)]
            cases = [(value, replaced(content, path, value)) for value in values if not alike(value, inner)]
            if path and not (file.name == "adapted.json" and len(path) > 1):  # which may answer with fewer classes
                cases.append(("left out", without(content, path)))
            for value, changed in cases:
                file.write_text(json.dumps(changed))
                try:
                    same = torch.equal(answer(str(folder)), expected)
                except DiffcernError as error:
                    same = bool(str(error))
                if not same:
                    wrong.append((file.name, path, value))
        file.write_text(original)
    assert not wrong


def edited(folder: Path, name: str, **values: Any) -> str:
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**content, **values}))
    return str(folder)


@pytest.mark.parametrize(
    ("model", "file", "values", "message"),
    [
        (
            "dit",
            "prior.json",
            {"class_names": ["a", 1, "c"]},
            r"json: class_names\.1 should be a valid string, not 1",
        ),
        ("dit", "prior.json", {"class_names": ["a", "a", "c"]}, "different names, but 'a' stands twice"),
        ("dit", "prior.json", {"class_names": ["a", "b"]}, "classes as many as 2, and denoiser/config.json of 3"),
        ("dit", "prior.json", {"image_size": "8"}, "image_size should be a valid integer, not '8'"),
        ("dit", "prior.json", {"image_size": 0}, "image_size should be greater than or equal to 4, not 0"),
        ("dit", "prior.json", {"image_size": 16}, "an image_size of 16, and denoiser/config.json of 8"),
        ("dit", "prior.json", {"channels": 1}, "channels and maps which together are 1, and denoiser/config.json of 3"),
        ("dit", "prior.json", {"channels": 2}, "channels should be one of 1, 3, not 2"),
        ("dit", "prior.json", {"architecture": ["dit"]}, "architecture should be a valid string"),
        ("dit", "prior.json", {"architecture": "dot"}, "unknown architecture 'dot'. Did you mean 'dit'"),
        (
            "dit",
            "prior.json",
            {"architecture": "unet"},
            "the key 'block_out_channels' is missing",
        ),
        ("dit", "prior.json", {"kind": "eps"}, "the kind 'epsilon', and scheduler/.* of 'sample'"),
        ("dit", "prior.json", {"kind": "score"}, "kind should be one of eps, x0, v, flow"),
        ("dit", "prior.json", {"kind": "flow"}, "the key 'shift' is missing"),
        ("flow", "scheduler/scheduler_config.json", {"shift": 0.0}, "shift should be greater than 0"),
        ("dit", "prior.json", {"colour": 1}, "the key 'colour' is unknown"),
        ("dit", "denoiser/config.json", {"norm_eps": 1.0}, "norm_eps is 1e-05 in all priors of ours, not 1.0"),
        ("dit", "scheduler/scheduler_config.json", {"beta_schedule": None}, "beta_schedule should be 'linear'"),
        ("depth", "prior.json", {"maps": None}, "channels and maps which together are 1, and .* of 2"),
        ("depth", "clean_errors.json", {}, "clean_errors"),
        ("captions", "prior.json", {"image_size": 16}, "an image_size of 16"),
        (
            "captions",
            "text_encoder/config.json",
            {"hidden_size": 32},
            "captions 16 wide, and .* makes them 32",
        ),
        ("captions", "tokenizer/tokenizer_config.json", {"model_max_length": 10**30}, "do not belong together"),
        ("small-resnet", "predictor.json", {"mean": [0.5, 0.5]}, "mean .*at least 3"),
        ("small-resnet", "predictor.json", {"std": [0.5, 0.0, 0.5]}, r"std\.1 should be greater than 0"),
        ("small-resnet", "predictor.json", {"task": "depth"}, "of depth there are none"),
        ("small-resnet", "predictor.json", {"image_size": [8, 8, 8]}, "image_size"),
        ("small-resnet", "predictor.json", {"width": True}, "width should be a valid integer, not True"),
        ("mae", "mae.json", {"heads": "2"}, "heads should be a valid integer"),
        ("adapted", "adapted.json", {"base": 3}, "base should be a valid string"),
        ("adapted", "adapted.json", {"class_names": "abc"}, "class_names should be a valid (tuple|array)"),
    ],
)
def test_the_key_is_named(model, file, values, message, tmp_path):
    make, answer = MODELS[model]
    make(tmp_path)
    if file == "clean_errors.json":
        values = [0.2, 0.1, *[0.3] * 99]
        (tmp_path / file).write_text(json.dumps(values))
        message = "percentiles, which do not fall"
    else:
        edited(tmp_path, file, **values)
    with pytest.raises(DiffcernError, match=message):
        answer(str(tmp_path))


def test_an_adapted_predictor_does_not_lead_back_to_itself(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, base in ((first, second), (second, first)):
        FORMS["adapted"].make(folder)
        edited(folder, "adapted.json", base=str(base))
    with pytest.raises(DiffcernError, match="leads back"):
        load_predictor(str(first))
    edited(first, "adapted.json", base=str(second))
    edited(second, "adapted.json", base=str(second / "base"))
    assert load_predictor(str(first)).class_names == NAMES


def test_an_alignment_is_validated(tmp_path):
    stored = {
        **{"predictor": "a", "generator": "b", "prior": "c", "fingerprints": {}, "method": "dda", "options": {}},
        **{"classes": ["a"], "per_class": 1, "sampling": {}, "resynthesis": True, "recipe": {}, "seed": 0},
    }
    (tmp_path / "align.json").write_text(json.dumps(stored))
    assert read_alignment(tmp_path).classes == ("a",)
    for key, value in {"classes": "a", "options": [], "seed": "0", "resynthesis": 1, "prompts": [1]}.items():
        (tmp_path / "align.json").write_text(json.dumps({**stored, key: value}))
        with pytest.raises(DiffcernError, match=rf"align\.json: {key}"):
            read_alignment(tmp_path)
    (tmp_path / "align.json").write_bytes(b"\xff")
    with pytest.raises(DiffcernError, match=r"align\.json, line 1: not UTF-8"):
        read_alignment(tmp_path)


def test_what_could_not_be_read_is_not_trained():
    with pytest.raises(UsageError, match="'crane' stands twice"):
        check_config(NativePredictorConfig("small-resnet", 8, ("crane", "crane"), (0.5,) * 3, (0.5,) * 3))
    with pytest.raises(UsageError, match="not empty"):
        check_config(NativeConfig("dit", "x0", 8, 3, ("", "a")))


@pytest.mark.parametrize(
    "options",
    [{"mean": (0.5, 0.5)}, {"std": (1.0, 0.0, 1.0)}, {"mean": (float("nan"),) * 3}, {"size": 0}, {"crop": 0.0}],
)
def test_a_predictor_that_no_image_can_be_prepared_for(options):
    with pytest.raises(UsageError):
        Predictor(torch.nn.Identity(), ("a", "b"), **options)


@pytest.mark.parametrize("content", ["[]", "3", "{", "\xff"])
def test_a_config_of_another_shape(content, tmp_path):
    for name in ("config.json", "model_index.json", "prior.json"):
        folder = tmp_path / name.replace(".", "-")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / name).write_bytes(content.encode("latin-1"))
        with pytest.raises(DiffcernError):
            (load_predictor if name == "config.json" else load_prior)(str(folder))
