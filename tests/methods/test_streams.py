"""Several images, several steps, the same state twice: what one image and one step do not show."""

import copy

import pytest
import torch

from diffcern.methods import build_method, diffusion_tta
from diffcern.methods.base import Weights
from diffcern.methods.parameters import choose_parameters
from diffcern.types import Inputs

FAST = {"steps": 4, "draws": 4, "optimizer": "sgd", "learning_rate": 1.0}
CARRIED = {  # methods whose state goes from batch to batch, each with an optimiser that keeps moments
    "tent": {"optimizer": "adam", "learning_rate": 0.05},
    "eta": {"optimizer": "adam", "learning_rate": 0.05, "sure": 1.0, "alike": 1.0},
    "sar": {"optimizer": "adam", "learning_rate": 0.05, "sure": 1.0, "recovery": 0.0},
    "deyo": {"optimizer": "adam", "learning_rate": 0.05, "sure": 1.0, "drop": -1.0},
    "roid": {"optimizer": "adam", "learning_rate": 0.05},
    "cotta": {"optimizer": "adam", "learning_rate": 0.05, "views": 2, "threshold": 1.0},
    "memo": {"optimizer": "adamw", "learning_rate": 0.05, "views": 4, "crops": "none"},
    "dusa": {"optimizer": "adam", "learning_rate": 0.05, "top_k": 2, "random_k": 1},
    "diffusion-tta": {"optimizer": "adam", "learning_rate": 0.05, "steps": 2, "draws": 4},
}


@pytest.fixture
def spied(task, monkeypatch):
    """What the task was asked: outputs and the classes kept, step by step."""
    asked = []
    original = task.condition
    monkeypatch.setattr(task, "condition", lambda output, keep: asked.append((output, keep)) or original(output, keep))
    return asked


def test_the_first_predictions_top_classes_are_kept(predictor, prior, task, inputs, spied):
    method = build_method("diffusion-tta", predictor, prior, task, {**FAST, "learning_rate": 100.0, "top_k": 2})
    answer, _ = method.step(method.init(), inputs, 0)
    first = spied[0][1]
    assert len(spied) == 4
    assert any(not torch.equal(output.topk(2, -1).indices, first) for output, _ in spied), "nothing would have changed"
    assert all(torch.equal(keep, first) for _, keep in spied)
    left = answer.output.isfinite().nonzero()[:, 1].view(-1, 2)
    assert torch.equal(left, first.sort(1).values)


def test_a_gated_image_moves_nothing(predictor, prior, task, inputs, monkeypatch):
    """One of two goes through the gate: the weights take its half of the mean gradient, and nothing of the other's."""
    options = {**FAST, "steps": 1, "learning_rate": 0.1}

    def weights(inputs, **more):
        method = build_method("diffusion-tta", predictor, prior, task, {**options, **more})
        return method.step(method.init(), inputs, 0)[1].predictor.parameters

    start = choose_parameters(predictor, "all")
    alone = weights(Inputs(inputs.images[:1], inputs.ids[:1]), learning_rate=0.05)
    monkeypatch.setattr(diffusion_tta, "rival_z", lambda *_: torch.tensor([9.0, 0.0]))
    gated = weights(Inputs(inputs.images[:2], inputs.ids[:2]), gate=2.0)
    assert any(not torch.equal(value, start[name]) for name, value in gated.items())
    for name, value in gated.items():
        assert torch.allclose(value, alone[name], atol=1e-6), name


@pytest.mark.parametrize("name", CARRIED)
def test_the_same_state_answers_the_same_twice(name, predictor, prior, task, inputs):
    method = build_method(name, predictor, prior, task, CARRIED[name])
    halves = [Inputs(inputs.images[k : k + 6], inputs.ids[k : k + 6]) for k in (0, 6)]
    _, state = method.step(method.init(), halves[0], 0)
    kept = copy.deepcopy(state)
    first, after = method.step(state, halves[1], 0)
    again, after_again = method.step(state, halves[1], 0)
    assert torch.equal(first.output, again.output)
    for one, two in ((state, kept), (after, after_again)):
        assert _equal(one, two)


def _equal(one, two) -> bool:
    """Of states: tensors, dictionaries, weights and what holds them."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(_equal(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(_equal, one, two))
    if isinstance(one, Weights) or hasattr(one, "__dataclass_fields__"):
        return all(_equal(getattr(one, name), getattr(two, name)) for name in one.__dataclass_fields__)
    return bool(one == two)


def test_last_is_the_last_linear_layer():
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2), torch.nn.Softplus())
    assert list(choose_parameters(network, "last")) == ["2.weight", "2.bias"]
    assert list(choose_parameters(network, "published")) == ["0.weight", "0.bias"]
