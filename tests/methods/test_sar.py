"""SAR: up by rho and then down, the top left alone, and the given weights where all answers are alike."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

from diffcern.errors import UsageError
from diffcern.methods import build_method
from diffcern.methods.sar import ascended
from diffcern.predictors import Predictor


def test_the_ascent_is_as_long_as_rho_over_all_weights():
    leaves = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0])}
    found = ascended(leaves, (torch.tensor([3.0, 0.0]), torch.tensor([4.0])), 0.5)
    assert torch.allclose(found["a"], torch.tensor([1.3, 2.0]))
    assert torch.allclose(found["b"], torch.tensor([3.4]))
    still = ascended(leaves, (torch.zeros(2), torch.zeros(1)), 0.5)
    assert torch.equal(still["a"], leaves["a"])


def test_the_step_is_of_the_gradient_at_the_ascended_weights(predictor, inputs):
    """Without an ascent it is ETA's, of all images by the same weight: TENT's."""
    options = {"optimizer": "sgd", "learning_rate": 0.3, "momentum": 0.0}
    tent = build_method("tent", predictor, None, None, options)
    expected = tent.step(tent.init(), inputs, 0)[1].parameters
    flat, sharp = (
        build_method("sar", predictor, None, None, {**options, "sure": 1.0, "rho": rho, "recovery": 0.0})
        for rho in (0.0, 0.5)
    )
    found = flat.step(flat.init(), inputs, 0)[1].weights.parameters
    assert all(torch.allclose(found[name], value, atol=1e-6) for name, value in expected.items())
    other = sharp.step(sharp.init(), inputs, 0)[1].weights.parameters
    assert any(not torch.allclose(other[name], value, atol=1e-4) for name, value in expected.items())


def test_weights_come_back_where_the_loss_is_low(predictor, inputs):
    method = build_method("sar", predictor, None, None, {"sure": 1.0, "recovery": 100.0, "learning_rate": 1.0})
    given = method.init().weights.parameters
    _, state = method.step(method.init(), inputs, 0)
    assert state.loss > 0
    assert state.weights.optimizer is None
    assert all(torch.equal(value, given[name]) for name, value in state.weights.parameters.items())


def test_a_batch_of_which_none_is_sure_moves_nothing(predictor, inputs):
    method = build_method("sar", predictor, None, None, {"sure": 0.0, "learning_rate": 1.0})
    state = method.init()
    assert method.step(state, inputs, 0)[1] is state


def network(names):
    layers = [(name, nn.Sequential(nn.Conv2d(3, 3, 1), nn.GroupNorm(1, 3))) for name in names]
    return Predictor(
        nn.Sequential(OrderedDict([*layers, ("flat", nn.Flatten()), ("head", nn.Linear(192, 4))])), tuple("0123")
    )


def test_the_top_of_published_architectures_stays():
    method = build_method("sar", network(["layer1", "layer3", "layer4"]), None, None, {})
    assert {name.split(".")[1] for name in method.init().weights.parameters} == {"layer1", "layer3"}
    method = build_method("sar", network(["layer1", "layer4"]), None, None, {"frozen": "layer1"})
    assert {name.split(".")[1] for name in method.init().weights.parameters} == {"layer4"}


def test_nothing_left_to_move_is_refused():
    with pytest.raises(UsageError, match=r"frozen = \['layer1', 'layer4'\] leaves no normalisation layer"):
        build_method("sar", network(["layer1", "layer4"]), None, None, {"frozen": ["layer1", "layer4"]})
    with pytest.raises(UsageError, match="option 'rho' of sar"):
        build_method("sar", network(["layer1"]), None, None, {"rho": -0.1})
