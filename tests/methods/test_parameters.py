"""Which parameters each choice adapts."""

import pytest
import torch
from torch import nn

from diffcern.errors import DiffcernError
from diffcern.methods.parameters import adaptable_copy, choose_parameters


class Block(nn.Module):
    """As vision transformers have them: attention, layer scale beside the parts, and an embedding at the top."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Parameter(torch.zeros(1, 8))
        self.attention = nn.MultiheadAttention(8, 2)
        self.scale = nn.Parameter(torch.ones(8))
        self.norm = nn.LayerNorm(8)
        self.head = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 3))


EXPECTED = {
    "norm": {"norm.weight", "norm.bias"},
    "last": {"head.1.weight", "head.1.bias"},
    # METHODS: the published code moves neither what sits beside a module's parts nor the last layer
    "published": {
        "attention.out_proj.weight",
        "attention.out_proj.bias",
        "norm.weight",
        "norm.bias",
        "head.0.weight",
        "head.0.bias",
    },
}


def test_choices():
    model = Block()
    everything = {name for name, _ in model.named_parameters()}
    assert set(choose_parameters(model, "all")) == everything
    for which, names in EXPECTED.items():
        assert set(choose_parameters(model, which)) == names
    beside = {"embedding", "scale", "attention.in_proj_weight", "attention.in_proj_bias"}
    assert everything - EXPECTED["published"] == beside | EXPECTED["last"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_half_precision_is_adapted_in_fp32(dtype):
    """In theirs most updates would be rounded away; what is finer already stays."""
    copied = adaptable_copy(Block().to(dtype), "all")
    expected = torch.float64 if dtype == torch.float64 else torch.float32
    assert {p.dtype for p in copied.parameters()} == {expected}


def test_one_weight_in_half_precision_among_others_counts_too():
    model = Block()
    model.head.half()
    assert {p.dtype for p in adaptable_copy(model, "all").parameters()} == {torch.float32}


def test_a_copy_is_frozen_and_what_is_chosen_is_ones_own():
    model = Block().train()
    copied = adaptable_copy(model, "all")
    assert not copied.training
    assert not any(p.requires_grad for p in copied.parameters())
    chosen = choose_parameters(model, "last")
    assert not any(value.requires_grad for value in chosen.values())
    chosen["head.1.bias"] += 1.0
    assert not torch.equal(chosen["head.1.bias"], model.head[1].bias)


def test_a_model_without_linear_layers_has_no_last_one():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    with pytest.raises(DiffcernError, match="no parameters of the kind 'last'"):
        choose_parameters(model, "last")
    assert set(choose_parameters(model, "published")) == {"0.weight", "0.bias", "1.weight", "1.bias"}
