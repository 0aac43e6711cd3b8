"""Imported ADM checkpoints compute what the published architecture computes, and bad files are named."""

import os
import pickle
import zipfile
from dataclasses import replace

import pytest
import torch
from adm_reference import ADM, Config
from diffusers import UNet2DModel
from diffusers.models.attention_processor import Attention, AttnProcessor

from diffcern.errors import DiffcernError, UsageError
from diffcern.priors.guided_diffusion import PUBLISHED, read_guided_diffusion

SIDE = 16
CONFIGS = {
    "plain": Config(),
    "no-attention": Config(attention=(), depth=2),
    "one-level": Config(multipliers=(1,), attention=(0,), depth=2),
    "updown": Config(updown=True, scale_shift=True, depth=2, multipliers=(1, 2, 3), attention=(1, 2)),
    "256-like": Config(updown=True, scale_shift=True, learn_sigma=True, multipliers=(1, 1, 2, 4), attention=(2, 3)),
    "512-like": Config(updown=True, scale_shift=True, learn_sigma=True, classes=5, multipliers=(0.5, 1, 2), width=16),
    "128-like": Config(updown=True, scale_shift=True, classes=5, multipliers=(1, 2, 3), attention=(0, 1, 2), heads=4),
    "64-like": Config(updown=True, scale_shift=True, learn_sigma=True, classes=5, depth=3, new_order=True),
    "additive": Config(multipliers=(1, 3, 2), attention=(0, 2), classes=3, head_channels=8, depth=2),
    "scale-shift": Config(scale_shift=True, multipliers=(1, 2, 2), attention=(1,), learn_sigma=True, head_channels=2),
    "updown-additive": Config(updown=True, multipliers=(2, 1), attention=(0,), channels=1, new_order=True, heads=2),
    "one-head": Config(multipliers=(1, 1), attention=(0, 1), head_channels=8, new_order=True),
}


def reference(config):
    """The network with random weights, of a size that keeps activations near 1, so that every path counts."""
    torch.manual_seed(0)
    model = ADM(config).eval().requires_grad_(False)
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            weight.normal_(std=1.5 / weight[0].numel() ** 0.5)  # keeps variance through SiLU, roughly
        else:
            weight.normal_(std=0.3).add_(float(name.endswith(("norm.weight", "layers.0.weight", "out.0.weight"))))
    return model


def arguments(config):
    return {
        "image_size": SIDE,
        "head_channels": config.head_channels,
        "heads": config.heads,
        "new_attention_order": config.new_order,
        "norm_groups": config.groups,
    }


def imported(config, state, folder, **changes):
    torch.save(state, folder / "model.pt")
    return read_guided_diffusion(folder / "model.pt", **arguments(config) | changes)


def relative_error(config, model, network):
    """The largest difference over timesteps from the first to the last, relative to the outputs' scale."""
    timesteps = torch.tensor([0, 1, 17, 250, 999])
    x = torch.randn(len(timesteps), config.channels, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(len(timesteps)) % config.classes if config.classes else None
    with torch.no_grad():
        expected = network(x, timesteps, labels)
        output = model(x, timesteps, class_labels=labels).sample
    assert output.shape == expected.shape
    return ((output - expected).abs().max() / expected.std()).item()


@pytest.mark.parametrize("name", CONFIGS)
def test_agrees_with_the_published_architecture(name, tmp_path):
    config = CONFIGS[name]
    network = reference(config)
    model = imported(config, network.state_dict(), tmp_path)
    error = relative_error(config, model, network)
    assert error < 1e-4  # fp32: sums in another order, and angles of up to 999 radians; at most 4e-5 when written
    for module in model.modules():
        if isinstance(module, Attention):
            module.set_processor(AttnProcessor())  # it reads the scale, which the default one works out itself
    assert relative_error(config, model, network) < 1e-4
    assert isinstance(model, UNet2DModel)
    assert not model.training
    assert not any(p.requires_grad or p.dtype != torch.float32 for p in model.parameters())
    assert model.config.sample_size == SIDE
    assert model.config.num_class_embeds == config.classes
    assert model.config.out_channels == config.channels * (1 + config.learn_sigma)


@pytest.mark.parametrize("change", [{"new_attention_order": True}, {"head_channels": 8}, {"heads": 1}])
def test_what_cannot_be_inferred_matters(change, tmp_path):
    config = CONFIGS["updown"]
    network = reference(config)
    assert relative_error(config, imported(config, network.state_dict(), tmp_path, **change), network) > 1e-2


def test_faint_activations_are_normalised_alike(tmp_path):
    """With variances near 1e-5 the epsilon inside each GroupNorm decides."""
    config = CONFIGS["updown"]
    network = reference(config)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv1d | torch.nn.Conv2d | torch.nn.Linear):
            module.weight.mul_(0.003)
            module.bias.mul_(0.003)
    assert relative_error(config, imported(config, network.state_dict(), tmp_path), network) < 1e-4


@pytest.mark.parametrize("name", ["plain", "128-like"])
def test_half_precision_files_become_fp32(name, tmp_path):
    config = CONFIGS[name]
    network = reference(config)
    model = imported(config, network.half().state_dict(), tmp_path)
    assert relative_error(config, model, network.float()) < 1e-4


@pytest.mark.parametrize("name", ["256-like", "64-like"])
def test_diffusers_saves_and_reads_what_its_config_can_say(name, tmp_path):
    config = CONFIGS[name]
    network = reference(config)
    imported(config, network.state_dict(), tmp_path).save_pretrained(tmp_path)
    model = UNet2DModel.from_pretrained(tmp_path, low_cpu_mem_usage=False)
    assert relative_error(config, model, network) < 1e-4


@pytest.mark.parametrize("name", ["128-like", "512-like"])
def test_what_the_config_cannot_say_is_not_read_back_wrongly(name, tmp_path):
    config = CONFIGS[name]
    imported(config, reference(config).state_dict(), tmp_path).save_pretrained(tmp_path)
    with pytest.raises((TypeError, RuntimeError, ValueError)):
        UNet2DModel.from_pretrained(tmp_path, low_cpu_mem_usage=False)


@pytest.mark.parametrize(
    ("file", "millions", "config"),
    [  # hyperparameters and sizes as the paper's appendix lists them; without classes, one million fewer
        ("64x64_diffusion.pt", 296, Config(192, (1, 2, 3, 4), 3, (1, 2, 3), classes=1000)),
        ("128x128_diffusion.pt", 422, Config(256, (1, 1, 2, 3, 4), 2, (2, 3, 4), classes=1000)),
        ("256x256_diffusion.pt", 554, Config(256, (1, 1, 2, 2, 4, 4), 2, (3, 4, 5), classes=1000)),
        ("256x256_diffusion_uncond.pt", 553, Config(256, (1, 1, 2, 2, 4, 4), 2, (3, 4, 5))),
        ("512x512_diffusion.pt", 559, Config(256, (0.5, 1, 1, 2, 2, 4, 4), 2, (4, 5, 6), classes=1000)),
    ],
)
def test_published_sizes(file, millions, config, tmp_path):
    """The published networks, without memory: names and shapes fit, and so does the number of parameters."""
    config = replace(config, updown=True, scale_shift=True, learn_sigma=True, groups=32)
    with torch.device("meta"):
        network = ADM(config)
    torch.save(network.state_dict(), tmp_path / file)
    model = read_guided_diffusion(tmp_path / file, **PUBLISHED[file])
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == sum(parameter.numel() for parameter in network.parameters())
    assert round(count / 1e6) == millions
    heads = {module.inner_dim: module.heads for module in model.modules() if isinstance(module, Attention)}
    assert heads == ({512: 4, 768: 4, 1024: 4} if file.startswith("128") else {width: width // 64 for width in heads})


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil-was-here",)


@pytest.mark.parametrize("legacy", [True, False])
def test_code_in_a_file_is_refused(legacy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pt"
    if legacy:
        path.write_bytes(pickle.dumps({"time_embed.0.weight": Evil()}, protocol=2))
    else:
        torch.save({"time_embed.0.weight": Evil()}, path)
    with pytest.raises(DiffcernError, match=r"evil\.pt") as refusal:
        read_guided_diffusion(path, image_size=SIDE)
    assert "weights_only" not in str(refusal.value)  # torch's advice to load it nonetheless
    assert not (tmp_path / "evil-was-here").exists()


@pytest.mark.parametrize("content", ["truncated", "text", "empty", "absent", "list", "nested", "zip"])
def test_what_is_not_a_checkpoint_is_named(content, tmp_path):
    path = tmp_path / "model.pt"
    state = reference(CONFIGS["plain"]).state_dict()
    torch.save({"list": list(state.values()), "nested": {"ema": state}}.get(content, state), path)
    if content == "truncated":
        path.write_bytes(path.read_bytes()[:-5000])
    elif content in ("text", "empty"):
        path.write_text("<html>not found</html>" if content == "text" else "")
    elif content == "absent":
        path.unlink()
    elif content == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a", "b")
    with pytest.raises(DiffcernError, match=r"model\.pt"):
        read_guided_diffusion(path, image_size=SIDE)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("time_embed.0.weight", "no usable time_embed.0.weight"),
        ("input_blocks.1.0.out_layers.3.weight", "no usable input_blocks.1.0.out_layers.3.weight"),
        ("middle_block.1.qkv.bias", "missing middle_block.1.qkv.bias"),
        ("output_blocks.0.1.qkv.weight", "missing output_blocks.0.1.qkv.weight"),
        ("input_blocks.4.1.qkv.weight", "unknown .*input_blocks.4.1.norm.bias"),  # by it the level seems to have none
        ("output_blocks.3.0.skip_connection.weight", "missing output_blocks.3.0.skip_connection.weight"),
    ],
)
def test_missing_tensors_are_listed(name, message, tmp_path):
    config = CONFIGS["updown"]
    state = reference(config).state_dict()
    del state[name]
    with pytest.raises(DiffcernError, match=f"model.pt.*{message}"):
        imported(config, state, tmp_path)


@pytest.mark.parametrize("name", ["updown", "plain"])
@pytest.mark.parametrize("part", ["input_blocks", "middle_block", "output_blocks", "out"])
def test_missing_parts_are_refused(name, part, tmp_path):
    config = CONFIGS[name]
    state = {key: value for key, value in reference(config).state_dict().items() if not key.startswith(f"{part}.")}
    with pytest.raises(DiffcernError, match=r"model\.pt"):
        imported(config, state, tmp_path)


@pytest.mark.slow
def test_any_missing_tensor_is_noticed(tmp_path):
    """Each weight in turn, as the configuration hangs on many of them."""
    config = CONFIGS["updown-additive"]
    state = reference(config).state_dict()
    for name in [name for name in state if name.endswith("weight")]:
        with pytest.raises(DiffcernError):
            imported(config, {key: value for key, value in state.items() if key != name}, tmp_path)


def test_extra_and_misshapen_tensors_are_listed(tmp_path):
    config = CONFIGS["plain"]
    state = reference(config).state_dict()
    extra = {f"encoder.{i}": torch.zeros(1) for i in range(6)}
    with pytest.raises(DiffcernError, match=r"unknown encoder\.0, encoder\.1, encoder\.2, encoder\.3 and 2 more"):
        imported(config, state | extra, tmp_path)
    for name, value in {"out.0.weight": torch.ones(3), "middle_block.1.qkv.weight": torch.ones(8, 16, 1)}.items():
        with pytest.raises(DiffcernError, match=f"misshapen {name}"):
            imported(config, state | {name: value}, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head_channels": 64}, "head_channels=64 does not divide the 16 channels of an attention"),
        ({"head_channels": 0}, "head_channels=0"),
        ({"heads": 3}, "heads=3 does not divide the 16"),
        ({"norm_groups": 32}, "norm_groups=32 does not divide the 8"),
        ({"image_size": 18}, "image_size=18 is not a multiple of 4"),
    ],
)
def test_wrong_arguments_are_named(change, message, tmp_path):
    config = CONFIGS["updown"]
    with pytest.raises(UsageError, match=message):
        imported(config, reference(config).state_dict(), tmp_path, **change)
