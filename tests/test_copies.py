"""Networks that Python's deepcopy refuses are copied all the same, and adapted by every method after a prediction."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
import torch.fx
from torch import nn
from torch.nn.utils import parametrizations, prune

import diffcern
from diffcern.copies import duplicate
from diffcern.predictors import Predictor


class Small(nn.Module):
    """Images to four classes; what makes it odd is done to its first layer, or held beside it."""

    def __init__(self, first: nn.Module) -> None:
        super().__init__()
        self.first = first
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 4)

    def forward(self, images):
        return self.head(torch.relu(self.norm(self.first(images))).mean((2, 3)))


class KeepsActivations(Small):
    def __init__(self, first: nn.Module) -> None:
        super().__init__(first)
        self.kept: dict[str, object] = {}

    def forward(self, images):
        self.features = self.norm(self.first(images))
        self.kept["features"] = [self.features]
        return self.head(self.features.mean((2, 3)))


class HoldsWhatCannotBeCopied(Small):
    def __init__(self, first: nn.Module) -> None:
        super().__init__(first)
        self.lock = threading.Lock()
        self.numbers = iter(range(3))
        self.layers = [first]  # a reference to a module, in a plain list beside a lock
        self.both = (self.lock, self.head)

    def forward(self, images):
        with self.lock:
            for layer in self.layers:
                images = layer(images)
            return self.both[1](self.norm(images).mean((2, 3)))


def conv() -> nn.Module:
    return nn.Conv2d(3, 6, 3)


NETWORKS = {
    "weight_norm": lambda: Small(nn.utils.weight_norm(conv())),
    "spectral_norm": lambda: Small(nn.utils.spectral_norm(conv())),
    "weight_norm as a parametrization": lambda: Small(parametrizations.weight_norm(conv())),
    "spectral_norm as a parametrization": lambda: Small(parametrizations.spectral_norm(conv())),
    "pruned": lambda: Small(prune.l1_unstructured(conv(), "weight", 0.3)),
    "FX": lambda: torch.fx.symbolic_trace(Small(conv())),
    "activations": lambda: KeepsActivations(conv()),
    "a lock": lambda: HoldsWhatCannotBeCopied(conv()),
    "a lock and weight_norm": lambda: HoldsWhatCannotBeCopied(nn.utils.weight_norm(conv())),
    "a lock beside a parametrization": lambda: HoldsWhatCannotBeCopied(parametrizations.weight_norm(conv())),
    "a lock beside TorchScript": lambda: HoldsWhatCannotBeCopied(torch.jit.trace(conv(), torch.rand(1, 3, 8, 8))),
}


@pytest.fixture(params=NETWORKS)
def network(request):
    torch.manual_seed(0)
    return NETWORKS[request.param]()


@pytest.fixture
def wrapped(network):
    """After the README's order: it has predicted, with a graph, before it is adapted."""
    predictor = diffcern.Predictor(network, tuple("0123"), size=8)
    predictor(torch.rand(2, 3, 8, 8))
    return predictor


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("shared", [False, True])
def test_a_copy_answers_alike_and_has_weights_of_its_own(wrapped, shared):
    images, before = torch.rand(2, 3, 8, 8), state(wrapped)
    twin = duplicate(wrapped, shared)
    assert torch.equal(twin(images), wrapped(images))
    assert not {id(module) for module in twin.modules()} & {id(module) for module in wrapped.modules()}
    assert not {id(p) for p in twin.parameters()} & {id(p) for p in wrapped.parameters()}
    places = {p.data_ptr() for p in twin.parameters()} & {p.data_ptr() for p in wrapped.parameters()}
    if shared:
        assert places
        return
    assert not places
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1)
    assert not torch.allclose(twin(images), wrapped(images))
    assert all(torch.equal(value, before[name]) for name, value in wrapped.state_dict().items())


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("source", {}),
        ("bn-adapt", {}),
        ("tent", {}),
        ("memo", {"views": 4}),
        ("diffusion-tta", {"steps": 2, "draws": 8, "learning_rate": 0.05}),
        ("diffusion-tta", {"steps": 2, "draws": 8, "batch_statistics": True, "learning_rate": 0.05}),
        ("dusa", {"top_k": 2, "random_k": 1}),
    ],
)
def test_every_method_runs_after_a_prediction(wrapped, prior, method, options):
    images, before = torch.rand(3, 3, 8, 8), state(wrapped)
    flags = [parameter.requires_grad for parameter in wrapped.parameters()]
    expected = wrapped(images)
    uses = {} if method in ("source", "bn-adapt", "tent", "memo") else {"prior": prior}
    adapted = diffcern.adapt(wrapped, method=method, **uses, **options)
    answer = adapted(images)
    assert torch.isfinite(answer).all()
    if method == "diffusion-tta":  # reached the weights behind what is odd
        assert not torch.allclose(answer, expected)
    assert torch.equal(wrapped(images), expected)
    assert all(torch.equal(value, before[name]) for name, value in wrapped.state_dict().items())
    assert [parameter.requires_grad for parameter in wrapped.parameters()] == flags


def test_these_are_networks_that_deepcopy_refuses():
    refused = set()
    for name, make in NETWORKS.items():
        network = make()
        network(torch.rand(1, 3, 8, 8))
        try:
            copy.deepcopy(network)
        except Exception:
            refused.add(name)
    assert refused >= {"weight_norm", "spectral_norm", "pruned", "activations", "a lock", "a lock beside TorchScript"}


class Hooked(Small):
    """Its head reads what hooks kept: in an attribute, a list, a default."""

    def __init__(self, first: nn.Module) -> None:
        super().__init__(first)
        self.kept: list[torch.Tensor] = []
        self.first.register_forward_hook(lambda module, inputs, output: setattr(self, "features", output))
        self.norm.register_forward_hook(lambda module, inputs, output, own=self: own.kept.append(output))
        count = 0

        def before(module, inputs):
            nonlocal count
            count += 1
            self.kept.clear()

        self.register_forward_pre_hook(before)
        self.scale = lambda features: features * self.norm.weight[:, None, None]

    def forward(self, images):
        self.first(images)
        self.norm(self.features)
        return self.head(self.scale(self.kept[-1]).mean((2, 3)))


@pytest.mark.parametrize("asked", [False, True], ids=["before a prediction", "after a prediction"])
def test_a_hook_of_the_copy_writes_into_the_copy(asked):
    torch.manual_seed(0)
    network, images, others = Hooked(conv()).eval(), torch.rand(4, 3, 8, 8), torch.rand(2, 3, 8, 8)
    expected = network(images).detach()
    network.kept.clear()
    del network.features
    if asked:
        network(others)
    twin = duplicate(network)
    assert torch.equal(twin(images), expected)
    assert len(network.kept) == asked
    predictor = Predictor(network, tuple("abcd"), size=8)
    answers = diffcern.adapt(predictor, None, method="source")(images)
    assert torch.allclose(answers, predictor(images).detach(), atol=1e-6)
    for method, options in (("tent", {"learning_rate": 0.1}), ("memo", {"views": 2, "learning_rate": 0.1})):
        moved = diffcern.adapt(predictor, None, method=method, **options)(images)
        assert moved.shape == (4, 4)
        assert not torch.equal(moved, answers)
