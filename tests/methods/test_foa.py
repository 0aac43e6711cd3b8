"""FOA on a tiny vision transformer: what is compared, searched, moved and refused. Its steps: tests/parity."""

import copy
import sys

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from diffcern.adapted import AdaptedModel
from diffcern.data import load_dataset, subset
from diffcern.errors import DiffcernError, UsageError
from diffcern.methods import build_method
from diffcern.predictors import Predictor

OPTIONS = {"source_images": "embedded:digits/train", "source_size": 6, "population": 6, "prompts": 2}


@pytest.fixture
def pycma():
    pytest.importorskip("cma", reason="pycma is not installed: pip install 'diffcern[foa]'")


@pytest.fixture
def transformer():
    torch.manual_seed(0)
    network = VisionTransformer(img_size=8, patch_size=4, embed_dim=8, depth=2, num_heads=2, num_classes=4)
    for parameter in network.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return Predictor(network, tuple("0123"), size=8)


def test_the_source_is_looked_at_without_a_prompt(transformer, pycma):
    images = subset(load_dataset("embedded:digits/train"), 6, 0)
    seen = transformer.resize([images[k].image for k in range(6)])
    method = build_method("foa", transformer, None, None, OPTIONS)
    network = transformer.model
    with torch.no_grad():
        first = network.blocks[0](network._pos_embed(network.patch_embed(seen)))
        tokens = torch.stack([first[:, 0], network.norm(network.blocks[1](first))[:, 0]])
    assert torch.allclose(method.source[0], tokens.mean(1), atol=1e-5)
    assert torch.allclose(method.source[1], tokens.var(1, correction=0).sqrt(), atol=1e-5)


def test_the_search_gets_fitter_and_is_a_value(transformer, inputs, pycma):
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    method = build_method("foa", transformer, None, None, OPTIONS)
    state, fitness = method.init(), []
    other = build_method("foa", transformer, None, None, OPTIONS)
    kept = copy.deepcopy(state)
    for _ in range(8):
        answer, after = method.step(state, inputs, 0)
        again, _ = method.step(state, inputs, 0)
        assert torch.equal(answer.output, again.output)
        state = after
        fitness.append(answer.trace[0][0])
    assert sum(fitness[-3:]) < sum(fitness[:3])
    assert kept == method.init()
    assert torch.equal(*(each.step(each.init(), inputs, 0)[0].output for each in (method, other)))
    assert not torch.equal(*(method.step(method.init(), inputs, seed)[0].output for seed in (0, 1)))
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


def test_it_moves_as_a_whole(transformer, inputs, pycma):
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


def test_without_pycma_it_says_what_brings_it(transformer, monkeypatch):
    monkeypatch.setitem(sys.modules, "cma", None)
    with pytest.raises(UsageError, match=r"needs cma, which is not installed: .*'diffcern\[foa\]'"):
        build_method("foa", transformer, None, None, OPTIONS)
