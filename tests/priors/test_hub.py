"""Loading published priors: what can be wrong with a repository is said, and nothing unsafe is read."""

from __future__ import annotations

import json

import pytest
import torch
from hub_checkpoints import CLASSES, controlled, ddpm, dit
from safetensors.torch import load_file, save_file

from diffcern.errors import DiffcernError, UsageError
from diffcern.priors import load_prior
from diffcern.types import Condition

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tmp_path):
    return dit(tmp_path / "dit")


def rewrite(folder, change) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def test_a_folder_and_a_repository_in_the_cache(folder, publish, recwarn):
    publish(folder, "someone/dit")
    here, hub = load_prior(str(folder)), load_prior("hf:someone/dit")
    assert here.class_names == hub.class_names == CLASSES
    x, t = torch.randn(1, *here.latent_shape), torch.tensor([5])
    assert torch.equal(here(x, t, Condition()).output, hub(x, t, Condition()).output)
    assert not [warning for warning in recwarn if "local_dir_use_symlinks" in str(warning.message)]


def test_what_is_not_there():
    with pytest.raises(DiffcernError, match=r"^cannot fetch 'someone/nothing' and it is not in the cache.*a network"):
        load_prior("hf:someone/nothing")
    with pytest.raises(DiffcernError, match=r"unknown prior.*hf:OWNER/NAME"):
        load_prior("someone/nothing")


def test_missing_extra_and_misshapen_tensors(folder):
    key = "transformer_blocks.0.attn1.to_q.weight"
    rewrite(folder, lambda tensors: tensors.pop(key))
    with pytest.raises(DiffcernError, match=rf"lacks 1 tensors \({key}\)"):
        load_prior(str(folder))
    rewrite(folder, lambda tensors: tensors.update({key: torch.zeros(16, 16), "surplus": torch.zeros(1)}))
    with pytest.raises(DiffcernError, match=r"too much: 1 tensors \(surplus\)"):
        load_prior(str(folder))
    rewrite(folder, lambda tensors: (tensors.pop("surplus"), tensors.update({key: torch.zeros(3, 16)})))
    with pytest.raises(DiffcernError, match="to_q"):
        load_prior(str(folder))


def test_truncated_weights(folder):
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])
    with pytest.raises(DiffcernError, match="cannot load the prior"):
        load_prior(str(folder))


def test_pickles_are_refused_unless_allowed(tmp_path):
    folder = ddpm(tmp_path / "ddpm")
    safe = folder / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(safe), safe.with_suffix(".bin"))
    safe.unlink()
    with pytest.raises(DiffcernError, match="allow-pickle"):
        load_prior(str(folder))
    assert load_prior(str(folder), allow_pickle=True).latent_shape == (3, 8, 8)


def test_another_kind_of_pipeline(folder):
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": "AudioLDMPipeline"}))
    with pytest.raises(DiffcernError, match=r"is a AudioLDMPipeline; priors are read from DiTPipeline"):
        load_prior(str(folder))


def test_guided_diffusion_by_its_published_name(tmp_path):
    with pytest.raises(DiffcernError, match="256x256_diffusion_uncond"):
        load_prior(f"guided-diffusion:{tmp_path}/mine.pt")
    (tmp_path / "256x256_diffusion_uncond.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(DiffcernError, match="cannot read"):
        load_prior(f"guided-diffusion:{tmp_path}/256x256_diffusion_uncond.pt")


def test_the_vae_stays_in_fp32(folder):
    half = load_prior(str(folder), torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert next(half.autoencoder.parameters()).dtype == torch.float32
    assert half.alphas.dtype == torch.float32


def test_a_controlnet_that_does_not_fit(folder, tmp_path):
    base, _, control = controlled(tmp_path / "sd").partition("+controlnet:")
    wider, _, _ = controlled(tmp_path / "sdxl", xl=True).partition("+controlnet:")
    for other in (wider, folder):
        with pytest.raises(UsageError, match="trained beside another U-Net"):
            load_prior(f"{other}+controlnet:{control}")
    with pytest.raises(UsageError, match=r"not beside embedded:digits"):
        load_prior(f"embedded:digits+controlnet:{control}")
    with pytest.raises(DiffcernError, match="cannot fetch 'someone/control'"):
        load_prior(f"{base}+controlnet:someone/control")
