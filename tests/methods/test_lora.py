"""LoRA as the parameters that are adapted: starts at the model, moves only the adapters, leaves the model alone."""

import pytest
import timm
import torch
from predictors.checkpoints import clip
from torch import nn

from diffcern.errors import DiffcernError
from diffcern.methods.base import call
from diffcern.methods.diffusion_tta import DiffusionTTA
from diffcern.methods.parameters import adaptable_copy, choose_parameters
from diffcern.predictors import Predictor, load_predictor
from diffcern.types import Inputs


@pytest.fixture
def transformer():
    torch.manual_seed(0)
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=8, patch_size=4, embed_dim=16, num_heads=2, depth=2, num_classes=4
    ).eval()


def test_it_starts_at_the_model(transformer):
    images = torch.rand(2, 3, 8, 8)
    copied = adaptable_copy(transformer, "lora")
    assert torch.equal(copied(images), transformer(images))
    chosen = choose_parameters(copied, "lora")
    assert {name.split(".")[3] for name in chosen} == {"qkv", "proj"}
    assert len(chosen) == 2 * 2 * 2  # A and B, of two layers, in two blocks
    again = choose_parameters(adaptable_copy(transformer, "lora"), "lora")
    assert all(torch.equal(value, again[name]) for name, value in chosen.items())


def test_diffusion_tta_moves_the_adapters_only(transformer, prior, task):
    before = {name: value.clone() for name, value in transformer.state_dict().items()}
    options = {"steps": 2, "draws": 8, "optimizer": "sgd", "learning_rate": 1.0, "parameters": "lora"}
    method = DiffusionTTA(Predictor(transformer, task.class_names), prior, task, **options)
    start = method.init()
    _, after = method.step(start, Inputs(torch.rand(1, 3, 8, 8), ["a"]), 0)
    moved = {n for n, v in after.predictor.parameters.items() if not torch.equal(v, start.predictor.parameters[n])}
    assert moved
    assert all(".lora_" in name for name in after.predictor.parameters)
    assert all(torch.equal(value, before[name]) for name, value in transformer.state_dict().items())


def test_of_clips_image_tower(tmp_path, task):
    """Its attention, and nothing of the text, which is no parameter."""
    clip(tmp_path)
    predictor = load_predictor(str(tmp_path), labels=["0", "1", "2", "3"])
    copied, images = adaptable_copy(predictor, "lora"), torch.rand(1, 3, 40, 32)
    assert torch.allclose(copied(images), predictor(images), atol=1e-5)  # weights frozen and not take other kernels
    chosen = choose_parameters(copied, "lora")
    assert {name.partition(".self_attn.")[2].partition(".")[0] for name in chosen} == {
        "q_proj",
        "k_proj",
        "v_proj",
        "out_proj",
    }
    assert len(chosen) == 4 * 2 * 2  # A and B, of four layers, in two blocks
    moved = {name: value + 0.1 for name, value in chosen.items()}
    assert not torch.allclose(call(copied, moved, images), predictor(images), atol=1e-4)


def test_a_model_without_attention():
    with pytest.raises(DiffcernError, match="no attention with linear layers for LoRA"):
        adaptable_copy(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), "lora")


def test_adapters_are_the_same_on_every_run_and_leave_torchs_generator_alone(transformer):
    """W + (2 / 8) B A of rank 8, frozen like the rest; A is drawn with torch's seed 0."""
    before = torch.get_rng_state()
    copied = adaptable_copy(transformer, "lora")
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(p.requires_grad for p in copied.parameters())
    assert not copied.training
    chosen = choose_parameters(copied, "lora")
    assert {min(value.shape) for value in chosen.values()} == {8}
    moved = {name: value + 0.1 for name, value in chosen.items()}
    name = next(name for name in chosen if ".proj.lora_A" in name)
    images, layer = torch.rand(2, 3, 8, 8), copied.get_submodule(name.partition(".lora_A")[0])
    seen = {}
    layer.register_forward_hook(lambda module, given, made: seen.update(x=given[0], y=made))
    call(copied, moved, images)
    down, up = moved[name], moved[name.replace("lora_A", "lora_B")]
    expected = layer.base_layer(seen["x"]) + 2 / 8 * seen["x"] @ down.T @ up.T
    assert torch.allclose(seen["y"], expected, atol=1e-5)
