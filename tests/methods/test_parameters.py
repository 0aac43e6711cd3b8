"""Which parameters each choice adapts."""

import torch
from torch import nn

from diffcern.methods.parameters import choose_parameters


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
