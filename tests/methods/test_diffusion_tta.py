"""What each option of Diffusion-TTA does to a step, with plain SGD and the gradient of `condition_gradient`."""

import pytest
import torch

from diffcern.draws import draw
from diffcern.errors import UsageError
from diffcern.likelihood import condition_gradient
from diffcern.methods import build_method, diffusion_tta
from diffcern.methods.diffusion_tta import DiffusionTTA
from diffcern.methods.gate import mask, rival_z
from diffcern.predictors import Predictor
from diffcern.priors.native import NativeConfig, native_prior
from diffcern.types import Condition

PLAIN = {"steps": 2, "draws": 6, "optimizer": "sgd", "learning_rate": 0.2, "momentum": 0.0}


def by_hand(predictor, prior, images, ids, *, seed=0, temperature=1.0, strategy="uniform", weighting="eps",
            span=(0.0, 1.0), resample=True, momentum=0.0, learning_rate=0.2, top_k=None):  # fmt: skip
    """Two steps of theta - lr v, v = momentum v + d L / d theta, L the mean over images; the logits after them."""
    theta = {name: p.detach().clone() for name, p in predictor.named_parameters()}
    velocity = {name: torch.zeros_like(p) for name, p in theta.items()}
    latents, keep, trace = prior.encode(images), None, []
    for update in range(2):
        leaves = {name: p.clone().requires_grad_() for name, p in theta.items()}
        logits = torch.func.functional_call(predictor, leaves, (images,))
        if top_k is not None and keep is None:
            keep = logits.topk(top_k, -1).indices
        scaled = logits / temperature
        if keep is not None:
            scaled = torch.full_like(scaled, -torch.inf).scatter(-1, keep, scaled.gather(-1, keep))
        c = scaled.softmax(-1)
        draws = draw(
            strategy, 6, latents, ids, seed=seed, num_timesteps=1000, update=update if resample else 0, span=span
        )
        result = condition_gradient(prior, latents, Condition(classes=c.detach()), draws, weighting=weighting)
        loss = (c * result.gradient.classes).sum() / len(images)  # whose gradient is (d L / d c) (d c / d theta)
        gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        for name, g in zip(leaves, gradients, strict=True):
            velocity[name] = momentum * velocity[name] + g
            theta[name] = theta[name] - learning_rate * velocity[name]
        trace.append(result.loss)
    return torch.func.functional_call(predictor, theta, (images,)), torch.stack(trace, 1)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 3.0},
        {"strategy": "stratified"},
        {"weighting": "exp-7t"},
        {"span": (0.2, 0.5)},
        {"resample": False},
        {"momentum": 0.8},
        {"learning_rate": 0.05},
        {"rows": 5},
        {"top_k": 2},
    ],
)
def test_two_steps_on_two_images(predictor, prior, task, inputs, options):
    two = inputs[:2]
    method = DiffusionTTA(predictor, prior, task, **{**PLAIN, **options})
    answer, state = method.step(method.init(), two, 4)
    known = {name: value for name, value in options.items() if name != "rows"}
    output, trace = by_hand(predictor, prior, two.images, two.ids, seed=4, **known)
    shown = answer.output.isfinite()
    assert torch.allclose(answer.output[shown], output[shown], atol=1e-3)
    assert shown.sum(1).tolist() == [options.get("top_k", 4)] * 2
    assert torch.allclose(torch.tensor(answer.trace), trace, rtol=1e-3)
    assert [(cost.nfe_forward, cost.nfe_backward) for cost in answer.costs] == [(12, 12)] * 2
    assert method.evaluations == 12
    assert state.prior is None


def test_the_gate_is_open_above_its_value_only(predictor, prior, task, inputs, monkeypatch):
    """Two images, one exactly at the gate: it has one evaluation, the other all."""
    monkeypatch.setattr(
        diffusion_tta, "rival_z", lambda per_draw, condition: torch.tensor([2.0, 2.1])[-len(condition) :]
    )
    method = DiffusionTTA(predictor, prior, task, **PLAIN, gate=2.0)
    answer, _ = method.step(method.init(), inputs[:2], 0)
    assert [cost.nfe_forward for cost in answer.costs] == [6, 12]
    assert list(map(len, answer.trace)) == [1, 2]


@pytest.fixture
def network():
    torch.manual_seed(0)
    prior = native_prior(NativeConfig("dit", "x0", 8, 3, tuple("0123")), width=16, depth=1, heads=2, patch=4)
    for parameter in prior.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return prior


@pytest.mark.parametrize(("rate", "expected"), [(None, 0.2), (0.03, 0.03)])
def test_the_prior_goes_down_the_same_loss(predictor, network, task, inputs, rate, expected):
    """One step on two images: d L / d phi of their mean loss, at its own rate or the predictor's."""
    two = inputs[:2]
    method = DiffusionTTA(predictor, network, task, **{**PLAIN, "steps": 1}, prior_learning_rate=rate)
    start = method.init()
    _, state = method.step(start, two, 0)
    network.requires_grad_(True)
    latents = network.encode(two.images)
    draws = draw("uniform", 6, latents, two.ids, seed=0, num_timesteps=1000)
    c = predictor(two.images).softmax(-1).detach().repeat_interleave(6, 0)
    t, noise = draws.timesteps.flatten(), draws.noise.flatten(0, 1)
    eps = network(network.add_noise(latents.repeat_interleave(6, 0), t, noise), t, Condition(classes=c)).eps
    loss = (eps - noise).square().mean()
    named = {name: p for name, p in network.named_parameters() if name.startswith("denoiser.")}
    gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    assert state.prior.parameters.keys() == named.keys()
    for (name, theta), g in zip(named.items(), gradients, strict=True):
        moved = theta if g is None else theta - expected * g
        torch.testing.assert_close(state.prior.parameters[name], moved.detach(), atol=1e-5, rtol=1e-3, msg=name)


def test_batch_statistics_are_of_the_batch(predictor, prior, task, inputs):
    """Without a step: BN-adapt's answer, mixed as asked."""
    for count in (0.0, 8.0):
        options = {**PLAIN, "learning_rate": 0.0, "batch_statistics": True, "source_count": count}
        method = DiffusionTTA(predictor, prior, task, **options)
        assert method.needs_batch
        assert method.answers_alone == (count > 0)
        adapt = build_method("bn-adapt", predictor, None, None, {"source_count": count})
        expected = adapt.step(None, inputs, 0)[0].output
        assert torch.allclose(method.step(method.init(), inputs, 0)[0].output, expected, atol=1e-5)
    plain = DiffusionTTA(predictor, prior, task, **{**PLAIN, "learning_rate": 0.0})
    assert not plain.needs_batch
    assert torch.allclose(plain.step(plain.init(), inputs, 0)[0].output, predictor(inputs.images), atol=1e-5)


def test_only_chosen_parameters_move(predictor, prior, task, inputs):
    method = DiffusionTTA(predictor, prior, task, **PLAIN, parameters="last")
    assert len(method.init().predictor.parameters) == 2


def test_a_masked_gradient_is_zero_for_whoever_is_done(prior):
    latents = prior.means[:2]
    draws = draw("uniform", 3, latents, ["a", "b"], seed=0, num_timesteps=1000)
    gradient = condition_gradient(prior, latents, Condition(classes=torch.full((2, 4), 0.25)), draws)
    masked = mask(gradient, torch.tensor([False, True]))
    assert not masked.gradient.classes[0].any()
    assert torch.equal(masked.gradient.classes[1], gradient.gradient.classes[1])
    assert masked.losses is gradient.losses


def test_the_best_rival_stands_out_by_its_own_standard_errors():
    """Rates of the two rivals: 1, 3, 2 and 2, 2.2, 1.8; the second stands out more though its mean is the same."""
    g = torch.tensor([[[0.0, -1.0, -2.0], [0.0, -3.0, -2.2], [0.0, -2.0, -1.8]]])
    z = rival_z(Condition(classes=g), Condition(classes=torch.tensor([[0.8, 0.1, 0.1]])))
    assert torch.allclose(z, torch.tensor([2.0 / (0.2 / 3**0.5)]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "at least 1, not 0"),
        ({"top_k": 0}, "between 1 and 4"),
        ({"top_k": 5}, "between 1 and 4"),
        ({"temperature": -1.0}, "above 0"),
        ({"gate": 1.0, "draws": 1}, "draws of at least 2"),
        ({"gate": 1.0, "adapt_prior": True}, "does not combine with adapt_prior"),
        ({"strategy": "antithetic", "draws": 3}, "even number"),
        ({"optimizer": "lion"}, "unknown optimizer"),
    ],
)
def test_what_is_refused(predictor, prior, task, options, message):
    with pytest.raises(UsageError, match=message):
        DiffusionTTA(predictor, prior, task, **options)


def test_the_ends_of_the_ranges_are_allowed(predictor, prior, task):
    for options in ({"top_k": 1}, {"top_k": 4}, {"steps": 1}, {"gate": 0.0, "draws": 2}):
        DiffusionTTA(predictor, prior, task, **options)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("segmentation", {"top_k": 2}, "top_k and gate compare classes of an image"),
        ("segmentation", {"gate": 1.0}, "top_k and gate compare classes of an image"),
        ("depth", {"temperature": 2.0}, "depth has none: leave it at 1"),
    ],
)
def test_what_maps_have_no_use_for(kind, options, message):
    from diffcern.priors.spatial import Maps
    from diffcern.tasks import task_of

    names = ("sky", "road") if kind == "segmentation" else ()
    config = NativeConfig("dit", "x0", 16, 3, (), Maps(kind, names))
    prior = native_prior(config, width=16, depth=1, heads=2, patch=8)
    predictor = Predictor(torch.nn.Conv2d(3, max(1, len(names)), 1), names, task=kind)
    with pytest.raises(UsageError, match=message):
        DiffusionTTA(predictor, prior, task_of(predictor, prior), **options)
