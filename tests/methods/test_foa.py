"""FOA on a tiny vision transformer: where the prompt stands, what is compared, shifted and searched."""

import copy

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from diffcern.adapted import AdaptedModel
from diffcern.errors import DiffcernError, UsageError
from diffcern.methods import build_method
from diffcern.methods.foa import normal
from diffcern.predictors import Predictor
from diffcern.rng import drawing_from, generator
from diffcern.types import Inputs

pytest.importorskip("cma", reason="pycma is not installed: pip install 'diffcern[foa]'")
OPTIONS = {"source_images": "embedded:digits/train", "source_size": 6, "population": 6, "prompts": 2}


@pytest.fixture
def transformer():
    torch.manual_seed(0)
    network = VisionTransformer(img_size=8, patch_size=4, embed_dim=8, depth=2, num_heads=2, num_classes=4)
    for parameter in network.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return Predictor(network, tuple("0123"), size=8)


def by_hand(network, images, prompt=None, shift=0.0):
    """Logits, and the class token behind the first block and before the head, without a hook."""
    tokens = network._pos_embed(network.patch_embed(images))
    if prompt is not None:
        tokens = torch.cat([tokens[:, :1], prompt.expand(len(images), -1, -1), tokens[:, 1:]], 1)
    first = network.blocks[0](tokens)
    last = network.norm(network.blocks[1](first))[:, 0]
    return network.head(last + shift), torch.stack([first[:, 0], last])


@torch.no_grad()
def test_a_batch_is_answered_by_the_fittest_prompt_and_shifted_to_the_source(transformer, inputs):
    """Against pycma over the equation, two batches."""
    import cma

    method = build_method("foa", transformer, None, None, {**OPTIONS, "discrepancy": 3.0})
    network, state, mean = transformer.model, method.init(), None
    source = method.source
    search = cma.CMAEvolutionStrategy([0.0] * 16, 1.0, {"popsize": 6, "verbose": -9, "randn": normal})
    for k in (0, 6):
        batch = Inputs(inputs.images[k : k + 6], inputs.ids[k : k + 6])
        answer, after = method.step(state, batch, 3)
        with drawing_from(generator(3, "foa", k // 6, *batch.ids)):
            candidates = search.ask()
        fitness, tokens = [], []
        for candidate in candidates:
            logits, seen = by_hand(network, batch.images, torch.tensor(candidate).float().view(2, 8))
            p, value = logits.softmax(1), 0.0
            value -= (p * p.log()).sum().item()
            for layer in range(2):
                value += 3.0 * 6 / 64 * (seen[layer].mean(0) - source[0][layer]).norm().item()
                value += 3.0 * 6 / 64 * (seen[layer].var(0, correction=0).sqrt() - source[1][layer]).norm().item()
            fitness.append(value)
            tokens.append(seen[1].mean(0))
        search.tell(candidates, fitness)
        best = int(np.argmin(fitness))
        assert answer.trace[0][0] == pytest.approx(fitness[best] / 6, rel=1e-4)
        mean = tokens[best] if mean is None else 0.9 * mean + 0.1 * tokens[best]
        prompt = torch.tensor(candidates[best]).float().view(2, 8)
        expected, _ = by_hand(network, batch.images, prompt, source[0][1] - mean)
        assert torch.allclose(answer.output, expected, atol=1e-4)
        assert torch.allclose(after.mean, mean, atol=1e-5)
        state = after


def test_the_source_is_looked_at_without_a_prompt(transformer):
    from diffcern.data import load_dataset, subset

    images = subset(load_dataset("embedded:digits/train"), 6, 0)
    seen = transformer.resize([images[k].image for k in range(6)])
    method = build_method("foa", transformer, None, None, OPTIONS)
    with torch.no_grad():
        _, tokens = by_hand(transformer.model, seen)
    assert torch.allclose(method.source[0], tokens.mean(1), atol=1e-5)
    assert torch.allclose(method.source[1], tokens.var(1, correction=0).sqrt(), atol=1e-5)


def test_the_search_gets_fitter_and_is_a_value(transformer, inputs):
    method = build_method("foa", transformer, None, None, OPTIONS)
    state, before, fitness = method.init(), np.random.get_state()[1].copy(), []  # noqa: NPY002
    other = build_method("foa", transformer, None, None, OPTIONS)
    kept = copy.deepcopy(state)
    for _ in range(12):
        answer, after = method.step(state, inputs, 0)
        again, _ = method.step(state, inputs, 0)
        assert torch.equal(answer.output, again.output)
        state = after
        fitness.append(answer.trace[0][0])
    assert sum(fitness[-4:]) < sum(fitness[:4])
    assert kept == method.init()
    assert torch.equal(*(each.step(each.init(), inputs, 0)[0].output for each in (method, other)))
    assert not torch.equal(*(method.step(method.init(), inputs, seed)[0].output for seed in (0, 1)))
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


def test_it_moves_as_a_whole(transformer, inputs):
    adapted = AdaptedModel(build_method("foa", transformer, None, None, OPTIONS), online=True)
    adapted(inputs.images, inputs.ids)
    moved = adapted.to("meta")
    assert {moved.state.mean.device.type, *(part.device.type for part in moved.method.source)} == {"meta"}
    assert next(moved.parameters()).device.type == "meta"


def test_what_is_refused(predictor, transformer):
    with pytest.raises(DiffcernError, match=r"one of timm's vision transformers .* take tent, eata or roid"):
        build_method("foa", predictor, None, None, OPTIONS)
    pooling = VisionTransformer(img_size=8, patch_size=4, embed_dim=8, depth=1, num_heads=2, global_pool="avg")
    with pytest.raises(DiffcernError, match="class token"):
        build_method("foa", Predictor(pooling, tuple(map(str, range(1000))), size=8), None, None, OPTIONS)
    with pytest.raises(UsageError, match="set source_images to a data set"):
        build_method("foa", transformer, None, None, {})
    with pytest.raises(UsageError, match="option 'population' of foa"):
        build_method("foa", transformer, None, None, {"population": 2})
