"""What all methods are made of: optimisers that go on where they stopped, and answers that are finite."""

import pytest
import torch
from torch import nn

from diffcern.errors import DiffcernError, UsageError
from diffcern.methods.base import Method, Optimizer, Weights, call, denoiser_weights, descend, frozen_copy, stop
from diffcern.priors.native import NativeConfig, native_prior

TORCHS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        (Optimizer("adam", 0.1, momentum=0.5), {}),
        (Optimizer("adamw", 0.1), {}),
        (Optimizer("sgd", 0.1), {}),
        (Optimizer("sgd", 0.1, momentum=0.9), {"momentum": 0.9}),
        (Optimizer("sgd", 0.1, momentum=0.9, nesterov=True), {"momentum": 0.9, "nesterov": True}),
        (Optimizer("sgd", 0.1, nesterov=True), {}),  # Nesterov's momentum of 0 is none
    ],
)
def test_steps_are_torchs_also_after_a_stop(optimizer, options):
    """Down sum w^2, two steps, stopped and started in between."""
    given = torch.tensor([1.0, -2.0])
    own = nn.Parameter(given.clone())
    reference = TORCHS[optimizer.name]([own], lr=0.1, **options)
    weights = Weights({"w": given})
    for _ in range(3):
        reference.zero_grad()
        own.square().sum().backward()
        reference.step()
        leaves, running = optimizer.start(weights)
        assert leaves["w"].requires_grad
        descend(leaves, running, [2 * leaves["w"].detach()])
        before, weights = weights, stop(leaves, running)
        assert not weights.parameters["w"].requires_grad
        assert not torch.equal(before.parameters["w"], weights.parameters["w"])
    assert torch.allclose(weights.parameters["w"], own.detach())
    assert given.tolist() == [1.0, -2.0]


def test_a_weight_without_a_gradient_stays():
    leaves, running = Optimizer("sgd", 0.1).start(Weights({"a": torch.ones(1), "b": torch.ones(1)}))
    descend(leaves, running, [None, torch.ones(1)])
    assert [leaf.item() for leaf in leaves.values()] == [1.0, pytest.approx(0.9)]
    with pytest.raises(ValueError, match="zip"):
        descend(leaves, running, [None])


@pytest.mark.parametrize(("rate", "momentum"), [(-0.1, 0.0), (float("inf"), 0.0), (0.1, 1.0), (0.1, -0.1)])
def test_rates_and_momenta_are_checked(rate, momentum):
    with pytest.raises(UsageError, match=r"momentum in \[0, 1\)"):
        Optimizer("sgd", rate, momentum)
    with pytest.raises(UsageError, match=r"unknown optimizer 'sdg'.*'sgd'"):
        Optimizer("sdg", 0.1)
    assert Optimizer("sgd", 0.0, 0.0).learning_rate == 0.0  # nothing moves


def test_one_logit_that_is_not_finite_is_an_error_among_others():
    model = nn.Linear(2, 2, bias=False)
    parameters = {"weight": torch.tensor([[1.0, 0.0], [0.0, float("inf")]])}
    with pytest.raises(DiffcernError, match="NaN or infinite"):
        call(model, parameters, torch.tensor([[1.0, 1.0]]))


def test_an_answer_without_a_gradient_is_an_error_where_one_is_wanted():
    """Where weights are to move: some of them ask for a gradient, and gradients are on."""

    class Detached(nn.Linear):
        def forward(self, x):
            return super().forward(x).detach()

    model, images = Detached(2, 2), torch.ones(1, 2)
    wanted = {"weight": torch.ones(2, 2, requires_grad=True), "bias": torch.zeros(2)}
    with pytest.raises(DiffcernError, match="has no gradient"):
        call(model, wanted, images)
    with torch.no_grad():
        assert call(model, wanted, images).tolist() == [[2.0, 2.0]]
    assert call(model, {"weight": torch.ones(2, 2), "bias": torch.zeros(2)}, images).tolist() == [[2.0, 2.0]]
    assert call(nn.Linear(2, 2), wanted, images).requires_grad


def test_a_frozen_copy_is_ones_own():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout()).train()
    copied = frozen_copy(model)
    assert not copied.training
    assert model.training
    assert not any(p.requires_grad for p in copied.parameters())
    assert all(p.requires_grad for p in model.parameters())
    copied[0].weight.fill_(3.0)
    assert not torch.equal(copied[0].weight, model[0].weight)


def test_a_priors_weights_are_its_networks():
    prior = native_prior(NativeConfig("dit", "x0", 8, 3, ("a", "b")), width=16, depth=1, heads=2, patch=4)
    prior.encoder = nn.Linear(2, 2)  # as an autoencoder would be
    found = denoiser_weights(prior)
    assert found.keys() == {name for name, _ in prior.named_parameters() if not name.startswith("encoder.")}
    assert len(found) > 4
    name, value = next(iter(found.items()))
    assert not value.requires_grad
    value += 1
    assert not torch.equal(dict(prior.named_parameters())[name], value)


def test_what_a_method_says_nothing_of():
    class Silent(Method):
        def init(self):
            return None

        def step(self, state, inputs, seed):
            return None, None

    method = Silent()
    assert (method.tasks, method.needs_batch, method.source_count) == (("classification",), False, 0.0)
    assert (method.evaluations, method.loaded, method.answers_alone) == (0, "", True)
    assert not Silent.reads_batch({"batch_statistics": True})
    method.needs_batch = True
    assert not method.answers_alone
    method.source_count = 0.5
    assert method.answers_alone
