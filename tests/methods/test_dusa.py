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
from diffcern.rng import generator
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


@pytest.mark.parametrize("others", ["multinomial", "uniform"])
def test_the_others_belong_to_the_image(predictor, network, task, others):
    """Keyed by (seed, "dusa", id): what stands in records is drawn again."""
    method = build_method("dusa", predictor, network, task, {"top_k": 1, "random_k": 2, "others": others})
    logits = torch.tensor([[0.1, 3.0, 0.2, 1.5], [2.0, 0.0, -40.0, -200.0]])
    chosen = method._choose(logits, Inputs(torch.zeros(2, 3, 8, 8), ["a", "b"]), 9)
    assert chosen[:, 0].tolist() == [1, 0]
    for row, (id, rest) in enumerate((("a", [3, 2, 0]), ("b", [1, 2, 3]))):
        likely = logits[row, rest].softmax(0).clamp(min=1e-30)  # as likely as nothing, and still drawn where it must be
        weights = likely if others == "multinomial" else torch.ones(3)
        picks = torch.multinomial(weights, 2, generator=generator(9, "dusa", id))
        assert chosen[row, 1:].tolist() == [rest[k] for k in picks.tolist()]


def test_scale_sharpens_the_normalised_logits(predictor, network, task, inputs):
    """p = softmax(s f / ||f||): the first loss tells, and the choice of classes does not change."""
    losses = {}
    for scale in (1.0, 6.0):
        method = build_method("dusa", predictor, network, task, {**PLAIN, "scale": scale})
        answer, _ = method.step(method.init(), inputs[:2], 0)
        logits, z = predictor(inputs.images[:2]), network.encode(inputs.images[:2])
        p = torch.softmax(scale * logits / logits.norm(dim=-1, keepdim=True), -1)
        d = draw("uniform", 1, z, inputs.ids[:2], seed=0, num_timesteps=1000, span=(0.1, 0.1))
        x_t = network.add_noise(z, d.timesteps[:, 0], d.noise[:, 0])
        each = [network(x_t, d.timesteps[:, 0], Condition(classes=torch.eye(4)[[k, k]])).eps for k in range(4)]
        mixed = sum(p[:, k, None, None, None] * each[k] for k in range(4))
        losses[scale] = (d.noise[:, 0] - mixed).square().flatten(1).mean(1)
        torch.testing.assert_close(torch.tensor(answer.trace)[:, 0], losses[scale].detach())
        assert torch.equal(answer.output, logits.detach())
        assert method.evaluations == 4
    assert not torch.allclose(losses[1.0], losses[6.0])


@pytest.mark.parametrize(("rate", "expected"), [(None, 0.1), (0.02, 0.02)])
def test_the_prior_has_its_own_rate_or_the_predictors(predictor, network, task, rate, expected):
    method = build_method("dusa", predictor, network, task, {**PLAIN, "momentum": 0.7, "prior_learning_rate": rate})
    assert method.prior_optimizer.learning_rate == expected
    assert method.prior_optimizer.momentum == method.optimizer.momentum == 0.7
    assert method.optimizer.learning_rate == 0.1


def test_only_chosen_parameters_move(predictor, network, task):
    method = build_method("dusa", predictor, network, task, {**PLAIN, "parameters": "last"})
    assert len(method.init().predictor.parameters) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timestep": -0.1}, "0 to 1, not -0.1"),
        ({"timestep": 1.1}, "0 to 1, not 1.1"),
        ({"top_k": 3, "random_k": 2}, "must fit the 4 classes"),
        ({"top_k": 2, "random_k": -1}, "must fit the 4 classes"),
    ],
)
def test_what_is_refused(predictor, network, task, options, message):
    with pytest.raises(UsageError, match=message):
        build_method("dusa", predictor, network, task, options)


def test_the_ends_of_the_ranges_are_allowed(predictor, network, task, inputs):
    for options in ({"timestep": 0.0}, {"timestep": 1.0}, {"top_k": 3, "random_k": 1}, {"top_k": 1, "random_k": 0}):
        method = build_method("dusa", predictor, network, task, {**PLAIN, **options})
        answer, _ = method.step(method.init(), inputs[:1], 0)
        assert torch.isfinite(torch.tensor(answer.trace)).all()


def test_a_prior_without_a_network_stays(predictor, prior, task):
    assert build_method("dusa", predictor, prior, task, {"random_k": 0}).init().prior is None


def test_a_race_leaves_out_of_the_loss_whom_the_noises_tell_from_the_best(predictor, prior, task, inputs):
    """The loss is over those that are left, and only they are differentiated or asked again."""
    options = {**PLAIN, "timestep": 0.5, "adapt_prior": False}
    plain = build_method("dusa", predictor, prior, task, options)
    patient = build_method("dusa", predictor, prior, task, {**options, "stop": "race", "z": 1e6, "draws": 4})
    whole, _ = plain.step(plain.init(), inputs, 0)
    same, _ = patient.step(patient.init(), inputs, 0)
    assert torch.equal(torch.tensor(same.trace), torch.tensor(whole.trace))  # nobody leaves
    assert {cost.nfe_forward for cost in same.costs} == {4 + 4 * 4}
    assert patient.evaluations == 4 + 4 * 4
    raced = build_method("dusa", predictor, prior, task, {**options, "stop": "race", "draws": 16})
    answer, _ = raced.step(raced.init(), inputs, 0)
    assert sum(cost.nfe_forward for cost in answer.costs) < 12 * (4 + 4 * 8)
    assert not any(whole.notes)
    for note, cost in zip(answer.notes, answer.costs, strict=True):  # where its race stopped, and how sure it was
        assert cost.nfe_forward >= 4 * 3 + 1 + note["rivals_left"]
        assert 3 <= note["stopped_after"] <= 16
        assert note["margin"] > 0 < note["margin_standard_error"]
    latents = prior.encode(inputs.images)
    d = draw("uniform", 1, latents, inputs.ids, seed=0, num_timesteps=1000, span=(0.5, 0.5))
    t, noise = d.timesteps[:, 0], d.noise[:, 0]
    eps = [
        prior(prior.add_noise(latents, t, noise), t, Condition(classes=torch.eye(4)[k].expand(12, -1))).eps
        for k in range(4)
    ]
    alone = (noise[None] - torch.stack(eps)).square().flatten(2).mean(2)  # [4, 12]: one class is left of most
    found = torch.tensor(answer.trace)[:, 0]
    assert ((alone - found).abs() < 1e-5).any(0).sum() >= 6


def test_a_race_among_candidates_is_the_image_s_own(predictor, prior, task, inputs):
    method = build_method("dusa", predictor, prior, task, {**PLAIN, "adapt_prior": False, "stop": "race"})
    together, _ = method.step(method.init(), inputs, 0)
    for i in range(len(inputs)):
        alone, _ = method.step(method.init(), inputs[i : i + 1], 0)
        assert alone.costs[0] == together.costs[i]
    latents = prior.latents(predictor.view(inputs.images))
    chosen = method._choose(predictor(inputs.images), inputs, 0)
    kept, _ = method._race(latents, chosen, inputs, 0)
    assert kept.any(1).all()
    assert not kept.all()  # somebody left
    for i in range(len(inputs)):
        own, _ = method._race(latents[i : i + 1], chosen[i : i + 1], inputs[i : i + 1], 0)
        assert torch.equal(own[0], kept[i])
    sure = build_method("dusa", predictor, prior, task, {**PLAIN, "adapt_prior": False, "stop": "race", "risk": 0.01})
    stays, _ = sure._race(latents, chosen, inputs, 0)
    assert (stays | ~kept).all()  # asks for longer
    assert stays.sum() > kept.sum()
    with pytest.raises(UsageError, match="standard errors above 0, not -1"):
        build_method("dusa", predictor, prior, task, {**PLAIN, "stop": "race", "z": -1.0})
    with pytest.raises(UsageError, match="looks first after 3 draws, and there are 2"):
        build_method("dusa", predictor, prior, task, {**PLAIN, "stop": "race", "draws": 2})


def test_a_race_does_not_go_with_a_prior_that_moves(predictor, network, task):
    with pytest.raises(UsageError, match="adapt_prior moves it"):
        build_method("dusa", predictor, network, task, {**PLAIN, "stop": "race"})
