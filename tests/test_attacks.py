"""Attacks against what they should find: linear targets whose worst image is a formula, and gradients through a
purifier against autograd without checkpoints and against differences of the written equations in fp64."""

import math

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from diffcern import likelihood, sampling
from diffcern.attacks import PGD, evaluations, scored, through, undefended
from diffcern.errors import UsageError
from diffcern.methods import build_method
from diffcern.methods.purified import voted
from diffcern.predictors import Predictor
from diffcern.priors import GaussianMixturePrior
from diffcern.priors.native import NativeConfig, native_prior
from diffcern.rng import generator
from diffcern.sampling import purify
from diffcern.types import Inputs

NAMES = ("ddpm", "ddim", "dpm-solver++", "sde-dpm-solver++", "unipc", "reverse-sde", "one-shot")
ROUTE = {"start": 400, "steps": 4}


@pytest.fixture
def diffpure(predictor, prior, task):
    def make(**options):
        given = {"start": 300, "steps": 3, "solver": "ddpm", **options}
        return build_method("diffpure", predictor, prior, task, given)

    return make


def network(image_size=8, depth=2):
    """A DiT with random weights."""
    torch.manual_seed(0)
    config = NativeConfig("dit", "x0", image_size, 3, tuple("0123"))
    prior = native_prior(config, width=32, depth=depth, heads=2, patch=2)
    for parameter in prior.parameters():
        nn.init.normal_(parameter, std=0.1)
    return prior.requires_grad_(False)


def gradient(result, leaf):
    weights = torch.randn(result.shape, generator=torch.Generator().manual_seed(5))
    return torch.autograd.grad((weights * result).sum(), leaf)[0]


@pytest.mark.parametrize(("solver", "clip"), [*((name, True) for name in NAMES), ("ddpm", False)])
def test_the_checkpointed_gradient_is_autograds(monkeypatch, solver, clip):
    """And what is differentiated is, to the bit, what purifies."""
    prior, ids = network(), ["a", "b", "c"]
    latents = torch.randn(3, 3, 8, 8).requires_grad_()
    options = {**ROUTE, "solver": solver, "clip": clip, "rows": 2}
    checkpointed = purify(prior, latents, ids, differentiable=True, **options)
    assert torch.equal(checkpointed, purify(prior, latents.detach(), ids, **options))
    found = gradient(checkpointed, latents)
    assert found.abs().max() > 0
    monkeypatch.setattr(sampling, "checkpoint", lambda function, *given, **_: function(*given))
    plain = purify(prior, latents, ids, differentiable=True, **options)
    assert torch.allclose(found, gradient(plain, latents), rtol=1e-4, atol=1e-6)  # the same sums in another order


def test_the_gradient_is_the_slope_of_the_equations_in_fp64():
    """Ancestral sampling (Ho et al. 2020, eq. 6 and 7) written out for a mixture of two Gaussians, in double precision,
    and differences of it along three directions: an error of 1e-9, where ours has that of fp32."""
    means = torch.stack([torch.full((3, 2, 2), value) for value in (-0.5, 0.5)])
    prior = GaussianMixturePrior(means, std=0.4, log_snr=(9.0, -9.0))
    start, steps, ids = 599, 5, ["a"]
    at = [round((i + 1) / steps * (start + 1)) - 1 for i in range(steps)]  # ascending

    def written(x):
        rng = generator(0, "purify", "a")
        alpha, sigma = prior.alphas.double(), prior.sigmas.double()
        x = alpha[at[-1]] * x + sigma[at[-1]] * torch.randn(3, 2, 2, generator=rng).double()
        for i in reversed(range(steps)):
            a, s = alpha[at[i]], sigma[at[i]]
            variance = a**2 * 0.4**2 + s**2
            weight = torch.softmax(torch.stack([-(x - a * m).square().sum() / (2 * variance) for m in (-0.5, 0.5)]), 0)
            mean = weight @ torch.tensor([-0.5, 0.5]).double()
            x0 = mean + a * 0.4**2 / variance * (x - a * mean)
            now, before = a**2, alpha[at[i - 1]] ** 2 if i else torch.tensor(1.0).double()
            beta = 1 - now / before
            x = before.sqrt() * beta / (1 - now) * x0 + (now / before).sqrt() * (1 - before) / (1 - now) * x
            if i:
                spread = (beta * (1 - before) / (1 - now)).sqrt()
                x = x + spread * torch.randn(3, 2, 2, generator=rng).double()
        return x

    point = 0.3 * torch.randn(1, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    leaf = point.clone().requires_grad_()
    options = {"start": start, "steps": steps, "solver": "ddpm", "clip": False}
    result = purify(prior, leaf, ids, differentiable=True, **options)
    assert torch.allclose(result[0].double(), written(point[0].double()), atol=1e-4)
    weights = torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(2))
    ours = torch.autograd.grad((weights * result).sum(), leaf)[0]
    for seed in range(3):
        way = torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(seed)).double()
        ends = [(weights * written(point[0].double() + h * way)).sum() for h in (1e-4, -1e-4)]
        slope = (ends[0] - ends[1]) / 2e-4
        assert (ours[0].double() * way).sum() == pytest.approx(slope.item(), rel=1e-3, abs=1e-4)


def kept_by(steps, checkpointed, monkeypatch):
    """How many numbers a graph through that many steps keeps for its gradient."""
    sizes = []
    with monkeypatch.context() as patch:
        if not checkpointed:
            patch.setattr(sampling, "checkpoint", lambda function, *given, **_: function(*given))
        with saved_tensors_hooks(lambda tensor: sizes.append(tensor.numel()) or tensor, lambda tensor: tensor):
            latents = torch.zeros(1, 3, 8, 8).requires_grad_()
            purify(network(), latents, ["a"], start=400, steps=steps, differentiable=True)
    return sum(sizes)


def test_a_step_keeps_a_few_latents_and_no_activations(monkeypatch):
    step = (kept_by(6, True, monkeypatch) - kept_by(2, True, monkeypatch)) / 4
    plain = (kept_by(6, False, monkeypatch) - kept_by(2, False, monkeypatch)) / 4
    assert step <= 4 * 3 * 8 * 8  # what goes into the network, and what the solver and the clamp multiply
    assert plain > 20 * step


def test_what_is_attacked_is_what_answers(diffpure, inputs):
    for options in ({}, {"solver": "one-shot"}, {"clip": True, "rows": 5}):
        method = diffpure(**options)
        answer = method.step(method.init(), inputs, 3)[0].output
        for backward in ("exact", "identity"):
            logits = through(method, backward)(inputs.images, inputs.ids, 3)
            assert torch.allclose(logits.log_softmax(-1), answer, atol=1e-5)


def test_the_identity_backward_is_the_predictors_gradient_at_the_purified_image(diffpure, predictor, inputs):
    """This prior's encoder and decoder scale by 2 and 1/2: in pixels they leave the gradient as it is."""
    method = diffpure()
    leaf = inputs.images.clone().requires_grad_()
    found = gradient(through(method, "identity")(leaf, inputs.ids, 0), leaf)
    purified = method.purifier(inputs.images, inputs.ids, 0).requires_grad_()
    expected = gradient(predictor(purified), purified)
    inside = (purified > 0) & (purified < 1)  # beyond, the decoder clamps
    assert inside.float().mean() > 0.5
    assert torch.allclose(found[inside], expected[inside], atol=1e-5)


def test_the_exact_gradient_passes_the_purifier(diffpure, prior, inputs):
    """One-shot, of one Gaussian: x0_hat has the slope alpha^2 s^2 / (alpha^2 s^2 + sigma^2) by the image."""
    single = GaussianMixturePrior(torch.zeros(1, 3, 8, 8), std=0.3, class_names=("0",))
    summed = type("Summed", (nn.Module,), {"forward": lambda self, x: x.flatten(1)[:, :4]})()
    method = build_method(
        "diffpure", Predictor(summed, tuple("0123")), single, None, {"start": 300, "steps": 1, "solver": "one-shot"}
    )
    leaf = torch.full((1, 3, 8, 8), 0.5).requires_grad_()
    logits = through(method)(leaf, ["a"], 0)
    assert 0 < logits.min() < logits.max() < 1
    a, s = single.alphas[300].item(), single.sigmas[300].item()
    slope = torch.autograd.grad(logits.sum(), leaf)[0].flatten()
    assert slope[:4].tolist() == pytest.approx([a**2 * 0.09 / (a**2 * 0.09 + s**2)] * 4, rel=1e-4)
    assert not slope[4:].any()


def linear(weights):
    """Two classes whose log-odds are linear in the image."""

    def target(images, ids, seed):
        odds = (images * weights).flatten(1).sum(1)
        return torch.stack([odds, torch.zeros_like(odds)], 1)

    return target


def test_of_a_linear_target_the_worst_image_is_known():
    weights = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0))
    images, labels, ids = torch.full((2, 3, 4, 4), 0.5), torch.tensor([0, 1]), ["a", "b"]
    signs = torch.tensor([-1.0, 1.0])[:, None, None, None]
    worst = PGD(0.1, 0.02, "linf", steps=15)(linear(weights), images, labels, ids)
    assert torch.allclose(worst, images + 0.1 * signs * weights.sign(), atol=1e-6)
    worst = PGD(0.3, 0.1, "l2", steps=30)(linear(weights), images, labels, ids)
    assert torch.allclose(worst, images + 0.3 * signs * weights / weights.norm(), atol=1e-3)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_attack_stays_near_the_image_and_raises_the_loss(predictor, inputs, targets, norm):
    attack = PGD(0.2 if norm == "linf" else 1.5, 0.05 if norm == "linf" else 0.4, norm, steps=5)
    attacked = attack(undefended(predictor), inputs.images, targets, inputs.ids)
    change = (attacked - inputs.images).flatten(1)
    size = change.abs().amax(1) if norm == "linf" else change.norm(dim=1)
    assert (size <= attack.radius * (1 + 1e-5)).all()
    assert 0 <= attacked.min() < attacked.max() <= 1
    before, after = (
        nn.functional.cross_entropy(predictor(images), targets, reduction="none")
        for images in (inputs.images, attacked)
    )
    assert (after > before).all()


def test_an_image_is_attacked_as_if_alone(diffpure, inputs, targets):
    attack = PGD(0.1, 0.05, steps=2, draws=2, restarts=2)
    target = through(diffpure())
    whole = attack(target, inputs.images, targets, inputs.ids, 4)
    alone = torch.cat([attack(target, inputs.images[i : i + 1], targets[i : i + 1], [f"image-{i}"], 4) for i in (0, 7)])
    # a sign flips where a gradient is rounded across 0
    assert ((whole[[0, 7]] - alone).abs() < 1e-5).float().mean() > 0.97
    assert not torch.allclose(attack(target, inputs.images, targets, inputs.ids, 5), whole, atol=1e-2)


def test_a_step_follows_the_mean_over_noises():
    """Each of the E evaluations has an id, and noise, of its own; the gradient is the mean of theirs."""
    asked = []

    def target(images, ids, seed):
        asked.extend(ids)
        noise = torch.stack([torch.randn(3, 2, 2, generator=generator(seed, id)) for id in ids])
        odds = (images * noise).flatten(1).sum(1)
        return torch.stack([odds, torch.zeros_like(odds)], 1)

    images, labels = torch.full((2, 3, 2, 2), 0.5), torch.tensor([0, 1])
    loss, found = PGD(draws=3).ascent(target, images, labels, ["a", "b"], 0)
    assert len(set(asked)) == 6
    for i, id in enumerate("ab"):
        mine = [name for name in asked if name.startswith(id)]
        noise = torch.stack([torch.randn(3, 2, 2, generator=generator(0, name)) for name in mine])
        sign = 1 if i == 0 else -1
        odds = sign * (images[i] * noise).flatten(1).sum(1)
        assert loss[i] == pytest.approx(nn.functional.softplus(-odds).mean().item(), rel=1e-5)
        slopes = -sign * torch.sigmoid(-odds)[:, None, None, None] * noise
        assert torch.allclose(found[i], slopes.mean(0), atol=1e-6)


def test_of_restarts_the_end_of_highest_loss_is_kept():
    """A valley at the image, deeper to the right: who begins on the left ends there, on the lower of two hills."""

    def target(images, ids, seed):
        x = images.flatten(1).mean(1) - 0.5
        return torch.stack([-torch.where(x > 0, 3 * x, -x), torch.zeros_like(x)], 1)

    images, labels, ids = torch.full((12, 3, 1, 1), 0.5), torch.zeros(12, dtype=torch.long), [str(i) for i in range(12)]
    once, often = (PGD(0.1, 0.05, steps=8, restarts=restarts)(target, images, labels, ids) for restarts in (1, 12))
    right = (once.flatten(1).mean(1) > 0.5).sum()
    assert 0 < right < 12
    assert torch.allclose(often, torch.tensor(0.6))


def test_evaluations_are_the_methods_answers_with_noise_of_their_own(diffpure, inputs):
    method = diffpure(start=500)
    answers = evaluations(method, inputs, 3, 1)
    assert answers.shape == (3, 12, 4)
    for number in range(3):
        asked = Inputs(inputs.images, [f"{id}/evaluation{number}" for id in inputs.ids])
        assert torch.equal(answers[number], method.step(None, asked, 1)[0].output.softmax(-1))
    assert not torch.allclose(answers[0], answers[1], atol=1e-3)
    assert voted(answers, "majority").argmax(-1).shape == (12,)


@pytest.mark.parametrize("options", [{}, {"stop": "race", "strategy": "van-der-corput", "first": [0.3, 0.9]}])
def test_scores_are_the_classifiers_and_so_is_their_gradient(monkeypatch, prior, task, inputs, options):
    given = {"draws": 6, "strategy": "stratified", "weighting": "x0", "rows": 7, **options}
    method = build_method("diffusion-classifier", None, prior, task, given)
    few = inputs[:2]
    target = scored(method, 6)
    leaf = few.images.clone().requires_grad_()
    logits = target(leaf, few.ids, 0)
    exhaustive = {"draws": 6, "strategy": "stratified", "weighting": "x0"}
    if options:
        exhaustive["span"] = options["first"]
    answer = build_method("diffusion-classifier", None, prior, task, exhaustive).step(None, few, 0)[0].output
    assert torch.allclose(logits - logits.amax(1, keepdim=True), answer, atol=1e-3)
    found = gradient(logits, leaf)
    assert found.abs().max() > 0
    monkeypatch.setattr(likelihood, "checkpoint", lambda function, *given, **_: function(*given))
    assert torch.allclose(gradient(scored(method, 6)(leaf, few.ids, 0), leaf), found, rtol=1e-4, atol=1e-5)


def test_an_attack_that_knows_the_defence_does_more(prior, task, inputs, targets):
    """The classifier looks at two rows and the purifier at all of the image: an attack on the classifier alone changes
    these two, which the purifier mends; the exact gradient finds what changes its mind."""

    class TwoRows(nn.Module):
        def forward(self, x):
            return -(2 * x[:, None] - 1 - prior.means)[..., :2, :].square().flatten(2).sum(2)

    method = build_method("diffpure", Predictor(TwoRows(), tuple("0123")), prior, task, {"start": 500, "steps": 3})

    def loss(images):
        answers = evaluations(method, Inputs(images, inputs.ids), 8)
        return -answers[:, torch.arange(12), targets].log().mean().item()

    clean = loss(inputs.images)
    alone, exact = (
        loss(PGD(0.15, 0.05, steps=6, draws=2)(target, inputs.images, targets, inputs.ids))
        for target in (undefended(method.predictor), through(method))
    )
    assert clean < alone
    assert exact - clean > 5 * (alone - clean)


def test_what_cannot_be_attacked_says_why(diffpure, predictor, prior, task, inputs, targets):
    for options in ({"norm": "l1"}, {"radius": 0.0}, {"step_size": math.nan}, {"steps": 0}, {"draws": 0}):
        with pytest.raises(UsageError):
            PGD(**options)
    attack = PGD(steps=1)
    with pytest.raises(UsageError, match="one label and id"):
        attack(undefended(predictor), inputs.images, targets[:3], inputs.ids)
    with pytest.raises(UsageError, match=r"pixels are in \[0, 1\]"):
        attack(undefended(predictor), 2 * inputs.images, targets, inputs.ids)
    with pytest.raises(UsageError, match="no gradient"):
        attack(lambda images, ids, seed: predictor(images.detach()), inputs.images, targets, inputs.ids)
    for options in ({"ensemble": "sum"}, {"skip": 0.9}):
        with pytest.raises(UsageError, match="ensemble none, and no skip"):
            through(diffpure(**options))
    guided = build_method("dda", predictor, prior, task, {"start": 300, "steps": 2, "ensemble": "none"})
    with pytest.raises(UsageError, match="without a guide"):
        through(guided)
    with pytest.raises(UsageError, match="backward is exact or identity"):
        through(diffpure(), "straight")
    with pytest.raises(UsageError, match="leave the guide out"):
        purify(prior, prior.means, list("abcd"), **ROUTE, guide=guided.purifier.guide, differentiable=True)
