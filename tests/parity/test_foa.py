"""FOA: two batches of an online stream through a vision transformer, block by block; the search is pycma's in both."""

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from diffcern.methods import build_method
from diffcern.methods.foa import normal
from diffcern.predictors import Predictor
from diffcern.rng import drawing_from, generator

from .conftest import NAMES, SIDE
from .test_baselines import batches
from .test_rivals import entropy

BLOCKS = "a transformer block by block, no hooks"


@torch.no_grad()
def test_foa(parity):
    """The fitness of each prompt, the best of them, and the shift to the source."""
    cma = pytest.importorskip("cma", reason="pycma is not installed: pip install 'diffcern[foa]'")
    torch.manual_seed(0)
    network = VisionTransformer(SIDE, 4, embed_dim=8, depth=2, num_heads=2, num_classes=len(NAMES))
    for parameter in network.parameters():
        parameter += 0.2 * torch.randn_like(parameter)
    images = {"source_images": "embedded:digits/train", "source_size": 6}
    options = {**images, "prompts": 2, "population": 6, "discrepancy": 3.0, "shift": 0.7}
    method = build_method("foa", Predictor(network, NAMES, size=SIDE), None, None, options)
    search = cma.CMAEvolutionStrategy([0.0] * 16, 1.0, {"popsize": 6, "verbose": -9, "randn": normal})
    state, mean, ours, expected, fitnesses = method.init(), None, [], [], ([], [])

    def forward(images, prompt, shift):
        tokens = network._pos_embed(network.patch_embed(images))
        tokens = torch.cat([tokens[:, :1], prompt.expand(len(images), 2, 8), tokens[:, 1:]], 1)
        first = network.blocks[0](tokens)
        last = network.norm(network.blocks[1](first))[:, 0]
        return network.head(last + shift).softmax(1), [first[:, 0], last]

    for step, batch in enumerate(batches(2)):
        answer, state = method.step(state, batch, 3)
        with drawing_from(generator(3, "foa", step, *batch.ids)):
            candidates = search.ask()
        values, means = [], []
        for candidate in candidates:
            p, seen = forward(batch.images, torch.tensor(candidate).float().view(1, 2, 8), 0.0)
            value = sum(entropy(row) for row in p)
            for layer, (mu, sigma) in enumerate(zip(*method.source, strict=True)):
                away = seen[layer] - seen[layer].mean(0)
                value = value + 3.0 * 6 / 64 * ((seen[layer].mean(0) - mu) ** 2).sum().sqrt()
                value = value + 3.0 * 6 / 64 * (((away**2).mean(0).sqrt() - sigma) ** 2).sum().sqrt()
            values.append(value.item())
            means.append(seen[1].mean(0))
        search.tell(candidates, values)
        best = values.index(min(values))
        mean = means[best] if mean is None else 0.9 * mean + 0.1 * means[best]
        prompt = torch.tensor(candidates[best]).float().view(1, 2, 8)
        expected.append(forward(batch.images, prompt, 0.7 * (method.source[0][1] - mean))[0])
        ours.append(answer.output.softmax(1))
        fitnesses[0].append(answer.trace[0][0] * 6)
        fitnesses[1].append(values[best])
    parity("FOA", "answers of 2 batches", BLOCKS, torch.cat(ours), torch.cat(expected))
    parity("FOA", "fitness of the best prompts", BLOCKS, *fitnesses)
