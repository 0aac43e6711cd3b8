"""The tensors of every form of checkpoint are exactly its network's, or the error names the tensor and the file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import caption_checkpoints
import hub_checkpoints
import pytest
import question_checkpoints
import torch
from predictors import checkpoints
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from diffcern.errors import DiffcernError, UsageError
from diffcern.fingerprints import fingerprint
from diffcern.predictors import load_predictor
from diffcern.predictors.adapted import save_adapted
from diffcern.predictors.clip import image_tower
from diffcern.predictors.mae import MaeConfig, mae_predictor, save_mae
from diffcern.predictors.native import NativePredictorConfig, native_predictor, save_predictor
from diffcern.predictors.question_answering import load_answerer
from diffcern.priors import load_prior
from diffcern.priors.native import NativeConfig, native_prior
from diffcern.weights import read_weights, write_weights

NAMES, GREY = ("a", "b", "c"), ((0.5,) * 3, (0.5,) * 3)
DENOISER, MODEL = "denoiser/diffusion_pytorch_model.safetensors", "model.safetensors"


class Form(NamedTuple):
    """How a folder of one form is made and loaded, and its file of weights; step: every how many-th tensor is tried,
    where a library takes long to load one."""

    make: Callable[[Path], object]
    load: Callable[[str], Any]
    file: str = MODEL
    step: int = 1


def prior(architecture: str, kind: str = "x0") -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        torch.manual_seed(0)
        made = native_prior(NativeConfig(architecture, kind, 8, 3, NAMES), width=16, depth=1, heads=2, patch=4)
        for parameter in made.parameters():
            parameter.data.normal_(std=0.2)
        made.save_pretrained(folder, torch.float32)

    return make


def predictor(architecture: str, task: Any = "classification", size: int = 8) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        torch.manual_seed(0)
        config = NativePredictorConfig(architecture, size, NAMES, *GREY, width=4, depth=1, task=task)
        save_predictor(native_predictor(config), config, folder)

    return make


def mae(folder: Path) -> None:
    config = MaeConfig(8, NAMES, *GREY, width=16, depth=1, heads=2, patch=4, decoder_depth=1)
    save_mae(mae_predictor(config), config, folder)


def adapted(folder: Path) -> None:
    predictor("small-resnet")(folder / "base")
    save_adapted(load_predictor(str(folder / "base")), str(folder / "base"), folder)


FORMS = {
    "dit": Form(prior("dit"), load_prior, DENOISER),
    "unet": Form(prior("unet"), load_prior, DENOISER),
    "captions": Form(caption_checkpoints.captioned, load_prior, DENOISER),
    "captions' words": Form(caption_checkpoints.captioned, load_prior, "text_encoder/model.safetensors"),
    "small-resnet": Form(predictor("small-resnet"), load_predictor),
    "small-unet": Form(predictor("small-unet", "segmentation", 32), load_predictor),
    "timm": Form(predictor("timm:test_byobnet", size=32), load_predictor, step=1),
    "mae": Form(mae, load_predictor),
    "adapted": Form(adapted, load_predictor),
    "clip": Form(checkpoints.clip, lambda name: load_predictor(name, labels=["cat", "dog"]), step=1),
    "vit": Form(checkpoints.classifier, load_predictor, step=1),
    "answerer": Form(question_checkpoints.saved, load_answerer, step=1),
    "hub": Form(hub_checkpoints.dit, load_prior, "transformer/diffusion_pytorch_model.safetensors", step=1),
    "hub's autoencoder": Form(hub_checkpoints.dit, load_prior, "vae/diffusion_pytorch_model.safetensors", step=5),
}
OWN = ("dit", "unet", "captions", "captions' words", "small-resnet", "small-unet", "timm", "mae", "adapted")


@pytest.fixture(params=FORMS)
def form(request) -> Form:
    return FORMS[request.param]


@pytest.fixture
def folder(form, tmp_path) -> Path:
    form.make(tmp_path / "model")
    return tmp_path / "model"


def put(file: Path, tensors: dict[str, Tensor]) -> None:
    save_file(tensors, file, metadata={"format": "pt"})  # as another program would: without a digest


def floats(tensors: dict[str, Tensor]) -> Iterator[str]:
    return (name for name, value in tensors.items() if value.is_floating_point() and value.numel() > 1)


@pytest.mark.slow
def test_every_tensor_is_missed(form, folder):
    file = folder / form.file
    tensors = load_file(file)
    form.load(str(folder))
    for name in sorted(tensors)[:: form.step]:
        put(file, {other: value for other, value in tensors.items() if other != name})
        with pytest.raises(DiffcernError, match=r"lacks 1 tensors \(.*" + name.rsplit(".", 1)[-1]) as caught:
            form.load(str(folder))
        assert str(folder) in str(caught.value)
    put(file, {})
    with pytest.raises(DiffcernError):
        form.load(str(folder))


def test_renamed_surplus_and_misshapen_tensors(form, folder):
    file = folder / form.file
    tensors = load_file(file)
    name = sorted(floats(tensors))[-1]
    rest = {other: value for other, value in tensors.items() if other != name}
    changed = {
        r"lacks 1 tensors.*has too many: 1 tensors|has too many: 1": {**rest, f"{name}_": tensors[name]},
        r"has too many: 1 tensors \(surplus\)": {**tensors, "surplus": torch.zeros(1)},
        "another shape|size mismatch": {**rest, name: torch.zeros(*tensors[name].shape, 2)},
        "another shape or type of 1 tensors|Only Tensors of fl": {
            **rest,
            name: (100 * tensors[name]).int(),
        },
        f"NaN or infinity in .*{name.rsplit('.', 1)[-1]}": {**rest, name: tensors[name] / 0},
    }
    for message, content in changed.items():
        put(file, content)
        with pytest.raises(DiffcernError, match=message) as caught:
            form.load(str(folder))
        assert str(folder) in str(caught.value)


@pytest.mark.parametrize("form", [FORMS[name] for name in OWN], ids=OWN)
def test_a_changed_byte_is_noticed(form, folder):
    file = folder / form.file
    content = bytearray(file.read_bytes())
    before = fingerprint(form.load(str(folder)))
    for place in (len(content) - 3, len(content) - len(content) // 3):  # numbers that stay finite
        content[place] ^= 1
        file.write_bytes(content)
        with pytest.raises(DiffcernError, match=r"safetensors was changed or damaged since it was written"):
            form.load(str(folder))
        content[place] ^= 1
    for name in (b'"diffcern":', b'"duffcern":'):  # the name of the digest is damaged too
        changed = content.replace(b'"diffcern":', name)
        changed[-3] ^= 1
        file.write_bytes(changed)
        with pytest.raises(DiffcernError, match=r"safetensors was changed or damaged since it was written"):
            form.load(str(folder))
    put(file, load_file(file) if file.write_bytes(content) else {})
    assert fingerprint(form.load(str(folder))) == before  # a file without a digest is read as before


@pytest.mark.parametrize("form", [FORMS[name] for name in OWN], ids=OWN)
def test_files_of_nothing_of_another_model_and_no_file(form, folder):
    file = folder / form.file
    for content in (b"", b"\0" * 100, file.read_bytes()[:-1], b"\xff" * 8 + b"{}"):
        file.write_bytes(content)
        with pytest.raises(DiffcernError, match=r"cannot read .*safetensors"):
            form.load(str(folder))
    put(file, {})
    with pytest.raises(DiffcernError, match=r"safetensors holds no tensors at all"):
        form.load(str(folder))
    file.unlink()
    with pytest.raises(DiffcernError, match=r"lacks .*safetensors"):
        form.load(str(folder))


def test_a_width_that_is_not_the_files_takes_no_memory(tmp_path):
    predictor("small-resnet")(tmp_path)
    config = json.loads((tmp_path / "predictor.json").read_text())
    (tmp_path / "predictor.json").write_text(json.dumps({**config, "width": 4096}))  # 20 GB of weights
    with pytest.raises(DiffcernError, match=r"do not fit its predictor\.json: it has another shape"):
        load_predictor(str(tmp_path))


def test_what_a_clip_lends_its_tower_from_is_whole(tmp_path):
    checkpoints.clip(tmp_path)
    image_tower(str(tmp_path))
    tensors = load_file(tmp_path / MODEL)
    name = next(name for name in sorted(tensors) if "vision" in name and "weight" in name)
    put(tmp_path / MODEL, {other: value for other, value in tensors.items() if other != name})
    with pytest.raises(DiffcernError, match="lacks 1 tensors"):
        image_tower(str(tmp_path))
    put(tmp_path / MODEL, {**tensors, name: tensors[name] * torch.nan})
    with pytest.raises(DiffcernError, match="NaN or infinity"):
        image_tower(str(tmp_path))


def test_timm_drops_no_head_in_silence(tmp_path):
    import timm

    model = timm.create_model("test_byobnet", num_classes=3)
    labels = {"label_names": list(NAMES), "num_classes": 3}
    timm.models.save_for_hf(model, tmp_path, model_config={**labels, "model_args": {}}, safe_serialization=True)
    assert load_predictor(str(tmp_path)).class_names == NAMES
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_args": {"num_classes": 2}}))
    with pytest.raises((DiffcernError, UsageError)):
        load_predictor(str(tmp_path))


def test_what_is_written_is_read_and_shared_memory_is_no_trouble(tmp_path):
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(3, 3)
            self.second = self.first
            self.norm = nn.BatchNorm1d(3)

    made, again = Tied(), Tied()
    write_weights(made.state_dict(), tmp_path / MODEL, torch.float16)
    with safe_open(tmp_path / MODEL, framework="pt") as content:
        assert content.metadata()["format"] == "pt"  # diffusers and transformers ask for it
        assert content.get_tensor("norm.num_batches_tracked").dtype == torch.int64
    read_weights(again, tmp_path / MODEL, "a")
    assert torch.equal(again.second.weight, made.first.weight.half().float())
    shutil.copy(tmp_path / MODEL, tmp_path / "copy.safetensors")
    with pytest.raises(DiffcernError, match=r"lacks 2 tensors \(bias, weight\); it has too many: 9"):
        read_weights(nn.Linear(3, 3), tmp_path / "copy.safetensors", "a")


@pytest.mark.parametrize(
    ("form", "file", "key", "value"),
    [
        ("vit", "config.json", "num_hidden_layers", 10**6),
        ("vit", "config.json", "hidden_size", 10**6),
        ("hub", "transformer/config.json", "num_layers", 10**6),
        ("hub", "transformer/config.json", "attention_head_dim", 10**6),
        ("hub", "vae/config.json", "layers_per_block", 10**6),
        ("answerer", "config.json", "text_config", {"model_type": "llama", "num_hidden_layers": 10**6}),
        ("clip", "config.json", "projection_dim", 10**9),
    ],
)
def test_a_network_far_beyond_its_weights_is_not_built(form, file, key, value, tmp_path):
    """It would take hours, or more memory than there is."""
    FORMS[form].make(tmp_path)
    content = json.loads((tmp_path / file).read_text())
    (tmp_path / file).write_text(json.dumps({**content, key: value}))
    with pytest.raises(DiffcernError, match=r"and (the|its) weights (beside it )?hold"):
        FORMS[form].load(str(tmp_path))


def test_a_processor_of_another_model(tmp_path):
    """Which only the first call would notice."""
    checkpoints.classifier(tmp_path)
    content = json.loads((tmp_path / "preprocessor_config.json").read_text())
    size = {"height": 64, "width": 64}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**content, "size": size}))
    with pytest.raises(DiffcernError, match=r"cannot take its images as they are prepared|disagrees with itself"):
        load_predictor(str(tmp_path))
