"""What a prior is told: the time, and mixtures of classes."""

import math

import torch
from hub_checkpoints import dit

from diffcern.priors import load_prior
from diffcern.types import Condition


def test_the_time_of_published_dits(tmp_path, parity):
    """cos(t f_i), sin(t f_i) with f_i = exp(-ln(10000) i / half), for every timestep."""
    torch.manual_seed(0)
    prior = load_prior(f"{dit(tmp_path / 'dit')}+frequencies:published")
    embedder = prior.denoiser.transformer_blocks[0].norm1.emb.time_proj
    half = torch.arange(128, dtype=torch.float64)
    angles = torch.arange(1000, dtype=torch.float64)[:, None] * torch.exp(-math.log(10_000) * half / 128)
    expected = torch.cat([angles.cos(), angles.sin()], 1)
    ours = embedder(torch.arange(1000))
    parity("DiT, published frequencies", "embedding of 1,000 timesteps", "the equation in fp64", ours, expected, 3e-4)


def test_a_mixture_of_classes(network, parity):
    """A soft label is told as the mixture of the rows of every block's table."""
    weights = torch.rand(2, 5, generator=torch.Generator().manual_seed(0)).softmax(-1)
    latents, t = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([9, 700])
    with torch.no_grad():
        ours = network(latents, t, Condition(classes=weights)).output
        tables = [
            block.norm1.emb.class_embedder.embedding_table.weight for block in network.denoiser.transformer_blocks
        ]
        rows, expected = [table.clone() for table in tables], []
        for b in range(2):
            for table, kept in zip(tables, rows, strict=True):  # the mixture in the place of class 0
                table[0] = sum(weights[b, k] * kept[k] for k in range(5))
            expected.append(network(latents[b : b + 1], t[b : b + 1], Condition(classes=torch.eye(5)[:1])).output)
    parity("Soft labels", "output of 2 images", "the tables' rows, mixed", ours, torch.cat(expected), 1e-5)
