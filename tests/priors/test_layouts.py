"""Repositories as people have them: parts at the root, weights of one precision only or in shards, sizes unsaid."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import ControlNetModel, DiTTransformer2DModel, UNet2DConditionModel
from hub_checkpoints import controlled, ddpm, dit, sd3, stable_diffusion
from safetensors.torch import load_file, save_file

from diffcern.errors import DiffcernError
from diffcern.priors import load_prior
from diffcern.types import Condition


def same(one, other) -> bool:
    x, t = torch.randn(1, *one.latent_shape), torch.tensor([5])
    # 5e-7 is what the place of a tensor in memory changes
    return torch.allclose(one(x, t, Condition()).output, other(x, t, Condition()).output, rtol=0, atol=1e-5)


def flattened(folder: Path) -> Path:
    """Parts at the root, as in google/ddpm-cifar10-32, and the names that tensors of attention had then."""
    for part in ("unet", "scheduler"):
        for file in (folder / part).iterdir():
            shutil.move(file, folder / file.name)
        (folder / part).rmdir()
    weights = folder / "diffusion_pytorch_model.safetensors"
    tensors, older = load_file(weights), {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for new, old in older.items():
        tensors = {name.replace(f".{new}.", f".{old}."): v for name, v in tensors.items()}
    assert any("proj_attn" in name for name in tensors)
    save_file(tensors, weights, metadata={"format": "pt"})
    return folder


def test_parts_at_the_root(tmp_path, publish):
    expected = load_prior(str(ddpm(tmp_path / "ddpm")))
    folder = flattened(tmp_path / "ddpm")
    assert {file.name for file in folder.iterdir()} == {
        "config.json",
        "diffusion_pytorch_model.safetensors",
        "model_index.json",
        "scheduler_config.json",
    }
    publish(folder, "google/ddpm-cifar10-32")
    for name in (str(folder), "hf:google/ddpm-cifar10-32"):
        assert same(load_prior(name), expected)


def test_parts_at_the_root_that_are_not_there(tmp_path):
    folder = flattened(ddpm(tmp_path / "ddpm"))
    (folder / "scheduler_config.json").rename(tmp_path / "kept.json")
    with pytest.raises(DiffcernError, match=r"lacks scheduler: .*holds only a part"):
        load_prior(str(folder))
    (tmp_path / "kept.json").rename(folder / "scheduler_config.json")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"_class_name": "AutoencoderKL"}))
    with pytest.raises(DiffcernError, match="lacks unet"):
        load_prior(str(folder))
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "diffusion_pytorch_model.safetensors").rename(folder / "diffusion_pytorch_model.ckpt")
    with pytest.raises(
        DiffcernError, match=r"neither diffusion_pytorch_model\.safetensors nor .*; what is there: .*ckpt"
    ):
        load_prior(str(folder))


def restored(folder: Path, network: type, **options) -> None:
    """Puts a network's weights back under other names."""
    model = network.from_pretrained(folder)
    for file in folder.glob("*.safetensors"):
        file.unlink()
    model.save_pretrained(folder, **options)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
@pytest.mark.parametrize("options", [{}, {"max_shard_size": "50KB"}], ids=["one file", "shards"])
def test_weights_of_one_precision_only(tmp_path, publish, precision, options):
    """The network's alone, or all: the rest of the repository has plain ones."""
    base, _, control = controlled(tmp_path / "sd").partition("+controlnet:")
    name = f"{base}+controlnet:{control}"
    expected = load_prior(name)
    restored(Path(base) / "unet", UNet2DConditionModel, variant=precision, **options)
    restored(Path(control), ControlNetModel, variant=precision, **options)
    assert same(load_prior(name), expected)
    for part, stem in (("vae", "diffusion_pytorch_model"), ("text_encoder", "model")):
        weights = Path(base) / part / f"{stem}.safetensors"
        weights.rename(weights.with_name(f"{stem}.{precision}.safetensors"))
    publish(Path(base), "someone/sd")
    publish(Path(control), "someone/control")
    prior = load_prior("hf:someone/sd+controlnet:someone/control")
    assert same(prior, expected)
    assert torch.equal(prior.prompts(["cat"]).tokens, expected.prompts(["cat"]).tokens)


def test_weights_in_shards(tmp_path):
    folder = dit(tmp_path / "dit")
    expected = load_prior(str(folder))
    restored(folder / "transformer", DiTTransformer2DModel, max_shard_size="10KB")
    shards = sorted((folder / "transformer").glob("*-of-*.safetensors"))
    assert len(shards) > 1
    assert same(load_prior(str(folder)), expected)
    shards[1].unlink()
    with pytest.raises(DiffcernError, match=r"cannot read .*transformer.*incomplete|truncated"):
        load_prior(str(folder))


def test_half_weights_are_computed_with_in_full_precision(tmp_path):
    folder = stable_diffusion(tmp_path / "sd")
    for part in ("unet", "vae", "text_encoder"):
        (weights,) = (folder / part).glob("*.safetensors")
        half = {name: value.half() for name, value in load_file(weights).items()}
        save_file(half, weights.with_name(f"{weights.stem}.fp16.safetensors"), metadata={"format": "pt"})
        weights.unlink()
    prior = load_prior(str(folder))
    assert prior.dtype == torch.float32
    assert prior.prompts(["cat"]).tokens.dtype == torch.float32
    assert next(prior.autoencoder.parameters()).dtype == torch.float32
    assert {parameter.dtype for network in prior.encoder.networks for parameter in network.parameters()} == {
        torch.float32
    }


def test_pickles_of_one_precision_are_allowed_too(tmp_path):
    folder = ddpm(tmp_path / "ddpm")
    expected = load_prior(str(folder))
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_name("diffusion_pytorch_model.fp16.bin"))
    weights.unlink()
    with pytest.raises(DiffcernError, match=r"what is there: diffusion_pytorch_model.fp16.bin. .*convert"):
        load_prior(str(folder))
    assert same(load_prior(str(folder), allow_pickle=True), expected)


def sized(folder: Path, part: str, size: object) -> str:
    config = folder / part / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"sample_size": size}))
    return str(folder)


@pytest.mark.parametrize(
    ("make", "part"),
    [(dit, "transformer"), (stable_diffusion, "unet"), (sd3, "transformer"), (ddpm, "unet")],
)
def test_a_size_that_is_a_list(tmp_path, make, part):
    folder = make(tmp_path / "prior")
    expected = load_prior(str(folder))
    prior = load_prior(sized(folder, part, [8, 8]))
    assert prior.latent_shape == expected.latent_shape
    assert same(prior, expected)
    with pytest.raises(DiffcernError) as error:
        load_prior(sized(folder, part, [8, 16]))
    assert "squares" in str(error.value)
    assert "truncated" not in str(error.value)


@pytest.mark.parametrize(("make", "part"), [(dit, "transformer"), (sd3, "transformer"), (ddpm, "unet")])
def test_a_size_that_nobody_says(tmp_path, make, part):
    folder = make(tmp_path / "prior")
    with pytest.raises(DiffcernError, match=r"sample_size: null.*write the side") as error:
        load_prior(sized(folder, part, None))
    assert "truncated" not in str(error.value)


def test_a_size_that_the_autoencoder_says(tmp_path):
    folder = stable_diffusion(tmp_path / "sd")
    config = folder / "vae" / "config.json"
    stored = json.loads(config.read_text())
    del stored["sample_size"]
    config.write_text(json.dumps(stored))
    with pytest.raises(DiffcernError, match=r"UNet2DConditionModel says sample_size: null"):
        load_prior(sized(folder, "unet", None))
    sized(folder, "vae", 24)  # pixels, of which this one makes 12 x 12 latents
    prior = load_prior(str(folder))
    assert prior.latent_shape == (4, 12, 12)
    assert prior.encode(torch.rand(1, 3, 30, 40)).shape == (1, 4, 12, 12)


def test_a_single_file_checkpoint_says_how_it_is_converted(tmp_path, publish):
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "v1-5-pruned.safetensors").touch()
    publish(tmp_path / "alone", "someone/alone")
    for place in (tmp_path / "alone", tmp_path / "alone" / "v1-5-pruned.safetensors"):
        with pytest.raises(DiffcernError, match=r"v1-5-pruned\.safetensors holds weights alone.*from_single_file"):
            load_prior(str(place))
    with pytest.raises(DiffcernError, match=r"has no model_index\.json.*converted once, by from_single_file"):
        load_prior("hf:someone/alone")
