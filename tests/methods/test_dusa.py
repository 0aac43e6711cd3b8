"""DUSA against autograd of the written equation, and its choice of classes against the published distribution."""

import pytest
import torch
from torch import nn

from diffcern.draws import draw
from diffcern.errors import DiffcernError, UsageError
from diffcern.methods import build_method
from diffcern.methods.presets import preset_options
from diffcern.predictors import Predictor
from diffcern.priors.native import NativeConfig, native_prior
from diffcern.tasks import Classification
from diffcern.types import Condition, Inputs

NAMES = tuple("0123")
PLAIN = {"top_k": 4, "random_k": 0, "optimizer": "sgd", "momentum": 0.0, "learning_rate": 0.1}


@pytest.fixture
def network():
    """A prior with weights, random ones everywhere."""
    torch.manual_seed(0)
    prior = native_prior(NativeConfig("dit", "eps", 8, 3, NAMES), width=16, depth=1, heads=2, patch=4)
    for parameter in prior.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return prior


def test_it_is_the_equations_gradient(predictor, network, task, inputs):
    """Several images, several chunks; predictor and prior move down L = mean_b ||eps - sum_k p_k eps_k||^2 / D."""
    images, lr = inputs[:3], 0.1
    network.requires_grad_(True)
    method = build_method("dusa", predictor, network, task, {**PLAIN, "rows": 4})
    prediction, state = method.step(method.init(), images, 3)
    z = network.encode(images.images)
    d = draw("uniform", 1, z, images.ids, seed=3, num_timesteps=1000, span=(0.1, 0.1))
    t, noise = d.timesteps[:, 0], d.noise[:, 0]
    assert t.tolist() == [100] * 3
    x_t = network.add_noise(z, t, noise)
    logits = predictor(images.images)
    p = torch.softmax(logits / logits.norm(dim=-1, keepdim=True), -1)
    mixed = 0.0
    for k in range(4):
        label = Condition(classes=torch.eye(4)[k].expand(3, -1))
        mixed = mixed + p[:, k, None, None, None] * network(x_t, t, label).eps
    losses = (noise - mixed).square().flatten(1).mean(1)
    torch.testing.assert_close(torch.tensor(prediction.trace)[:, 0], losses.detach())
    for model, after in ((predictor, state.predictor), (network, state.prior)):
        named = dict(model.named_parameters())
        gradients = torch.autograd.grad(losses.mean(), list(named.values()), retain_graph=True, allow_unused=True)
        assert after.parameters.keys() == named.keys()
        for (name, theta), g in zip(named.items(), gradients, strict=True):
            expected = theta if g is None else theta - lr * g
            torch.testing.assert_close(after.parameters[name], expected.detach(), atol=1e-6, rtol=1e-4, msg=name)


def test_without_adapt_prior_the_prior_stays(predictor, network, task, inputs):
    for options in ({**PLAIN, "adapt_prior": False}, preset_options("dusa", "small") | PLAIN):
        method = build_method("dusa", predictor, network, task, options)
        prediction, state = method.step(method.init(), inputs[:2], 3)
        assert state.prior is None
        assert prediction.costs[0].nfe_backward == 0
    cheap = state.predictor.parameters
    full = build_method("dusa", predictor, network, task, PLAIN)
    prediction, state = full.step(full.init(), inputs[:2], 3)
    assert prediction.costs[0].nfe_backward == prediction.costs[0].nfe_forward == 4
    for name, value in cheap.items():  # the predictor's first step is the same
        torch.testing.assert_close(state.predictor.parameters[name], value)


@pytest.mark.parametrize(("others", "share"), [("multinomial", None), ("uniform", 2 / 6)])
def test_the_others_are_drawn_as_published(others, share):
    """A multinomial over the softmax of what is left, without replacement; the fifth of ten is then mostly there."""
    logits = torch.tensor([9.0, 8.0, 7.0, 6.0, 5.0, 4.6, 4.0, 3.0, 2.0, 1.0])
    q = logits[4:].softmax(0)
    included = q[0] + sum(q[j] * q[0] / (1 - q[j]) for j in range(1, 6))  # first, or second after another
    names, count = tuple("abcdefghij"), 2000
    torch.manual_seed(0)
    prior = native_prior(NativeConfig("dit", "eps", 8, 3, names), width=16, depth=1, heads=2, patch=4)
    predictor = Predictor(nn.Sequential(nn.Flatten(), nn.Linear(192, 10)), names)
    method = build_method("dusa", predictor, prior, Classification(names, names), {"others": others})
    ids = [str(i) for i in range(count)]
    chosen = method._choose(logits.expand(count, -1), Inputs(torch.zeros(count, 3, 8, 8), ids), 0)
    assert chosen[:, :4].eq(torch.arange(4)).all()
    assert all(len(set(row)) == 6 for row in chosen.tolist())
    found = (chosen[:, 4:] == 4).any(1).float().mean()
    assert found == pytest.approx(included.item() if share is None else share, abs=0.035)  # three standard errors


def test_a_prior_that_overflows_is_noticed(predictor, network, task, inputs):
    """In float16 it answered as source does, and said nothing."""
    network.denoiser.proj_out_2.bias.data.fill_(torch.inf)
    for adapts in (True, False):
        method = build_method("dusa", predictor, network, task, {**PLAIN, "adapt_prior": adapts})
        with pytest.raises(DiffcernError, match="NaN or infinite: in float16, try bfloat16"):
            method.step(method.init(), inputs[:1], 0)


def test_half_precision_wants_it_said(predictor, network, task):
    network.denoiser.bfloat16()
    with pytest.raises(UsageError, match="set adapt_prior=false"):
        build_method("dusa", predictor, network, task, {"random_k": 0})
    build_method("dusa", predictor, network, task, {"random_k": 0, "adapt_prior": False})
