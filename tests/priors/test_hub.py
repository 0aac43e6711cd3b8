"""Loading published priors: what can be wrong with a repository is said, and nothing unsafe is read."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderTiny
from hub_checkpoints import CLASSES, controlled, ddpm, dit, stable_diffusion
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


@pytest.mark.slow
def test_loading_says_nothing(tmp_path):
    """No "Loading pipeline components", no "Expected types for id2label": in a process of its own, on both streams."""
    folders = [str(dit(tmp_path / "dit")), str(stable_diffusion(tmp_path / "sd"))]
    script = f"from diffcern.priors import load_prior; [load_prior(folder) for folder in {folders!r}]"
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("", "")


def test_other_libraries_are_as_loud_as_before(tmp_path):
    from diffusers.utils import logging

    logging.set_verbosity_info()
    try:
        load_prior(str(dit(tmp_path / "dit")))
        assert logging.get_verbosity() == logging.INFO
        assert logging.is_progress_bar_enabled()
    finally:
        logging.set_verbosity_warning()


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
    with pytest.raises(DiffcernError, match=r"too many: 1 tensors \(surplus\)"):
        load_prior(str(folder))
    rewrite(folder, lambda tensors: (tensors.pop("surplus"), tensors.update({key: torch.zeros(3, 16)})))
    with pytest.raises(DiffcernError, match="to_q"):
        load_prior(str(folder))


@pytest.mark.parametrize("part", ["vae", "text_encoder"])
def test_the_other_networks_are_complete_too(part, tmp_path):
    """diffusers itself fills what is missing with random numbers, and goes on."""
    folder = stable_diffusion(tmp_path / "sd")
    (weights,) = (folder / part).glob("*.safetensors")
    tensors = load_file(weights)
    key = sorted(tensors)[0]
    save_file({name: value for name, value in tensors.items() if name != key}, weights, metadata={"format": "pt"})
    with pytest.raises(DiffcernError, match=rf"{part} do not fit its config.json: it lacks 1 tensors \(.*{key}\)"):
        load_prior(str(folder))
    save_file({**tensors, "surplus": torch.zeros(1)}, weights, metadata={"format": "pt"})
    with pytest.raises(DiffcernError, match=r"too many: 1 tensors \(surplus\)"):
        load_prior(str(folder))


def test_published_names_of_tensors(tmp_path):
    """Stable Diffusion 1 and 2 were published with names that the libraries have changed since."""
    folder = stable_diffusion(tmp_path / "sd")
    expected = load_prior(str(folder))
    text = folder / "text_encoder" / "model.safetensors"
    tensors = {f"text_model.{name.removeprefix('text_model.')}": value for name, value in load_file(text).items()}
    tensors["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(tensors, text, metadata={"format": "pt"})
    vae = folder / "vae" / "diffusion_pytorch_model.safetensors"
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = load_file(vae)
    for new, old in older.items():
        tensors = {name.replace(f"attentions.0.{new}", f"attentions.0.{old}"): v for name, v in tensors.items()}
    assert "encoder.mid_block.attentions.0.proj_attn.weight" in tensors
    save_file(tensors, vae, metadata={"format": "pt"})
    prior, image = load_prior(str(folder)), torch.rand(1, 3, 16, 16)
    assert torch.equal(prior.encode(image), expected.encode(image))
    assert torch.equal(prior.prompts(["cat"]).tokens, expected.prompts(["cat"]).tokens)


def test_truncated_weights(folder):
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])
    with pytest.raises(DiffcernError, match=r"cannot read .*transformer: .*truncated"):
        load_prior(str(folder))


class Harmful:
    def __reduce__(self):
        return print, ("this ran",)


def test_pickles_are_refused_unless_allowed(tmp_path, publish, capsys):
    """And are then read without running code; of a repository in the cache as of a folder."""
    folder = ddpm(tmp_path / "ddpm")
    safe = folder / "unet" / "diffusion_pytorch_model.safetensors"
    pickled = safe.with_suffix(".bin")
    torch.save(load_file(safe), pickled)
    safe.unlink()
    publish(folder, "someone/ddpm")
    for name in (str(folder), "hf:someone/ddpm"):
        with pytest.raises(DiffcernError, match=r"no weights in safetensors format \(unet/diff.*--allow-pickle"):
            load_prior(name)
        assert load_prior(name, allow_pickle=True).latent_shape == (3, 8, 8)
    torch.save({"conv_in.weight": Harmful()}, pickled)
    with pytest.raises(DiffcernError, match="cannot read"):
        load_prior(str(folder), allow_pickle=True)
    assert "this ran" not in capsys.readouterr().out
    pickled.unlink()
    with pytest.raises(DiffcernError, match=r"has no weights: neither unet/diffusion_pytorch_model\.safetensors"):
        load_prior(str(folder), allow_pickle=True)


def test_a_repository_that_is_cached_in_part(folder, publish, tmp_path):
    (tmp_path / "index").mkdir()
    shutil.copy(folder / "model_index.json", tmp_path / "index")
    publish(tmp_path / "index", "someone/index")
    with pytest.raises(DiffcernError, match=r"someone/index lacks scheduler, transformer, vae.*machine with a network"):
        load_prior("hf:someone/index")
    (folder / WEIGHTS).unlink()
    publish(folder, "someone/configurations")
    with pytest.raises(DiffcernError, match=r"someone/configurations is incomplete, or has no weights"):
        load_prior("hf:someone/configurations")


def test_a_revision_and_a_controlnet_of_the_hub(folder, publish, tmp_path):
    publish(folder, "someone/dit")
    assert load_prior("hf:someone/dit@main").class_names == CLASSES
    base, _, control = controlled(tmp_path / "sd").partition("+controlnet:")
    publish(Path(base), "someone/sd")
    publish(Path(control), "someone/control")
    assert load_prior("hf:someone/sd+controlnet:someone/control").spatial_shape == (3, 16, 16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transformer": ["theirs", "Network"]}, "theirs.Network as its transformer.*a repository's own code"),
        ({"vae": ["diffusers", "NoSuchModel"]}, "diffusers.NoSuchModel as its vae"),
        ({"_class_name": ["theirs", "DiTPipeline"]}, "priors are read from DiTPipeline"),
    ],
)
def test_code_in_a_repository_does_not_run(folder, change, message):
    """There is no flag for it: no family needs any."""
    (folder / "theirs.py").write_text("raise SystemExit('this ran')")
    (folder / "transformer" / "theirs.py").write_text("raise SystemExit('this ran')")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | change))
    with pytest.raises(DiffcernError, match=message):
        load_prior(str(folder))


def test_another_kind_of_pipeline(folder):
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": "AudioLDMPipeline"}))
    with pytest.raises(DiffcernError, match=r"is a AudioLDMPipeline; priors are read from DiTPipeline"):
        load_prior(str(folder))


def test_an_autoencoder_of_another_kind(folder):
    """A distilled one has no posterior whose mean could be taken."""
    shutil.rmtree(folder / "vae")
    AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    ).save_pretrained(folder / "vae")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"vae": ["diffusers", "AutoencoderTiny"]}))
    with pytest.raises(DiffcernError, match="vae is a AutoencoderTiny; latents are read from an AutoencoderKL"):
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
