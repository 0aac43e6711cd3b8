"""Diffusion-TTA, DUSA and Diffusion Classifier."""

import copy

import pytest
import torch

from diffcern.draws import draw
from diffcern.methods import build_method

from .conftest import NAMES, eps_of

AUTOGRAD = "autograd through everything, torch's optimiser"
WEIGHTS = {"eps": lambda alpha, sigma: 1.0, "x0": lambda alpha, sigma: (sigma / alpha) ** 2}


def drawn(prior, inputs, count, update, strategy="uniform", **options):
    latents = prior.encode(inputs.images)
    return latents, draw(strategy, count, latents, inputs.ids, seed=7, num_timesteps=1000, update=update, **options)


def loss_of(prior, latents, draws, classes, weight="eps"):
    """E_{t, eps} w(t) mean (eps - eps_hat)^2 for each image, by a loop over images and draws."""
    losses = []
    for b in range(len(latents)):
        own = []
        for m in range(draws.count):
            t, noise = draws.timesteps[b, m][None], draws.noise[b, m][None]
            alpha, sigma = prior.alphas[t], prior.sigmas[t]
            x_t = alpha.view(-1, 1, 1, 1) * latents[b : b + 1] + sigma.view(-1, 1, 1, 1) * noise
            error = (noise - eps_of(prior, x_t, t, classes[b : b + 1])).square().mean()
            own.append(WEIGHTS[weight](alpha, sigma) * error)
        losses.append(torch.stack(own).mean())
    return torch.stack(losses)


def moves(adapted, given, by_hand):
    """What a method moved each weight by, and what was done by hand."""
    before, after = (dict(model.named_parameters()) for model in (given, by_hand))
    ours = {name: value - before[name].detach() for name, value in adapted.parameters.items()}
    return ours, {name: (after[name] - before[name]).detach() for name in ours}


OPTIONS = {
    "Adam 1e-2": {"optimizer": "adam", "learning_rate": 1e-2},
    "SGD with momentum, x0 weighting, softened": {
        "optimizer": "sgd",
        "learning_rate": 0.5,
        "weighting": "x0",
        "temperature": 2.0,
    },
    "the first prediction's top 2 classes": {"optimizer": "sgd", "learning_rate": 0.5, "top_k": 2},
    "the prior too": {"optimizer": "sgd", "learning_rate": 0.5, "adapt_prior": True},
}


@pytest.mark.parametrize("case", OPTIONS)
def test_diffusion_tta(case, classifier, reference, network, names, three, parity):
    """Three steps on three images as one batch: the mean of their losses moves all weights."""
    given = {"steps": 3, "draws": 4, "adapt_prior": False, "rows": 5, **OPTIONS[case]}
    method = build_method("diffusion-tta", classifier, network, names, given)
    prediction, state = method.step(method.init(), three, 7)
    prior = copy.deepcopy(network).requires_grad_(given["adapt_prior"])
    parameters = (
        [*reference.parameters(), *prior.denoiser.parameters()] if given["adapt_prior"] else reference.parameters()
    )
    if given["optimizer"] == "adam":
        optimizer = torch.optim.Adam(parameters, given["learning_rate"])
    else:
        optimizer = torch.optim.SGD(parameters, given["learning_rate"], momentum=0.9)
    kept, losses = None, []
    for update in range(3):
        logits = reference(three.images) / given.get("temperature", 1.0)
        if "top_k" in given:
            kept = logits.topk(given["top_k"], -1).indices if kept is None else kept
            masked = torch.full_like(logits, -torch.inf).scatter(-1, kept, logits.gather(-1, kept))
            classes = masked.softmax(-1)
        else:
            classes = logits.softmax(-1)
        latents, draws = drawn(prior, three, 4, update)
        loss = loss_of(prior, latents, draws, classes, given.get("weighting", "eps"))
        losses.append(loss.detach())
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
    title = f"Diffusion-TTA, {case}"
    parity(title, "losses of 3 steps x 3 images", AUTOGRAD, torch.tensor(prediction.trace).T, torch.stack(losses))
    parity(title, "the predictor's weights", AUTOGRAD, *moves(state.predictor, classifier, reference), 1e-3)
    if given["adapt_prior"]:
        parity(title, "the prior's weights", AUTOGRAD, *moves(state.prior, network, prior), 1e-3)
    if "top_k" not in given:
        with torch.no_grad():
            parity(title, "the answer", AUTOGRAD, prediction.output, reference(three.images), 1e-3)


def test_dusa(classifier, reference, network, names, three, parity):
    """Two steps of an online stream; predictor and prior move."""
    given = {"top_k": 2, "random_k": 1, "optimizer": "sgd", "learning_rate": 1.0, "timestep": 0.1, "rows": 4}
    method = build_method("dusa", classifier, network, names, given)
    state, answers = method.init(), []
    prior = copy.deepcopy(network).requires_grad_(True)
    optimizers = [torch.optim.SGD(model.parameters(), 1.0, momentum=0.9) for model in (reference, prior.denoiser)]
    expected = []
    for _ in range(2):
        prediction, state = method.step(state, three, 7)
        answers.append(prediction.output)
        logits = reference(three.images)
        expected.append(logits.detach())
        chosen = method._choose(logits.detach(), three, 7)
        p = (logits / logits.norm(dim=-1, keepdim=True)).gather(-1, chosen).softmax(-1)
        latents, draws = drawn(prior, three, 1, 0, span=(0.1, 0.1))
        t, noise = draws.timesteps[:, 0], draws.noise[:, 0]
        x_t = prior.add_noise(latents, t, noise)
        mixed = sum(
            p[:, k, None, None, None] * eps_of(prior, x_t, t, torch.eye(len(NAMES))[chosen[:, k]]) for k in range(3)
        )
        loss = (noise - mixed).square().mean()
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
    title = "DUSA"
    parity(title, "answers of 2 steps", AUTOGRAD, torch.stack(answers), torch.stack(expected), 1e-3)
    parity(title, "the predictor's weights", AUTOGRAD, *moves(state.predictor, classifier, reference), 1e-3)
    parity(title, "the prior's weights", AUTOGRAD, *moves(state.prior, network, prior), 1e-3)


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_diffusion_classifier(norm, network, names, three, parity):
    """-D (mean error - least mean error) at evenly spaced times, one noise bank for all images and classes."""
    method = build_method("diffusion-classifier", None, network, names, {"draws": 10, "norm": norm, "rows": 7})
    prediction, _ = method.step(None, three, 7)
    latents, draws = drawn(network, three, 10, 0, "fixed-bank")
    assert draws.timesteps[0].tolist() == [50 + 100 * i for i in range(10)]  # T//M//2, T//M//2 + T//M, ...
    expected = torch.zeros(3, len(NAMES))
    with torch.no_grad():
        for b in range(3):
            for k in range(len(NAMES)):
                for m in range(10):
                    t, noise = draws.timesteps[b, m][None], draws.noise[b, m][None]
                    x_t = network.add_noise(latents[b : b + 1], t, noise)
                    residual = noise - eps_of(network, x_t, t, torch.eye(len(NAMES))[k][None])
                    expected[b, k] += (residual.abs() if norm == "l1" else residual.square()).mean() / 10
    expected = -latents[0].numel() * (expected - expected.amin(1, keepdim=True))
    title = f"Diffusion Classifier, {norm}"
    parity(title, "scores of 5 classes x 3 images", "loops over classes and draws", prediction.output, expected, 1e-4)


def test_staged_elimination(network, names, three, parity):
    """keep 3 1 / 2 10: the published indices of each stage, and of an eliminated class its last score."""
    options = {"keep": (3, 1), "samples": (2, 10), "strategy": "even"}
    method = build_method("diffusion-classifier", None, network, names, options)
    prediction, _ = method.step(None, three, 7)
    latents, draws = drawn(network, three, 10, 0, "even")
    stages = [[2, 7], list(range(10))]  # of 10 evenly spaced times: T//M//2, ...
    expected = torch.zeros(3, len(NAMES))
    with torch.no_grad():
        for b in range(3):
            errors = torch.zeros(len(NAMES), 10)
            for k in range(len(NAMES)):
                for m in range(10):
                    t, noise = draws.timesteps[b, m][None], draws.noise[b, m][None]
                    x_t = network.add_noise(latents[b : b + 1], t, noise)
                    errors[k, m] = (noise - eps_of(network, x_t, t, torch.eye(len(NAMES))[k][None])).square().mean()
            alive = list(range(len(NAMES)))
            for used, kept in zip(stages, (3, 1), strict=True):
                means = {k: errors[k, used].mean() for k in alive}
                for k in alive:
                    expected[b, k] = means[k] - min(means.values())
                alive = sorted(alive, key=means.__getitem__)[:kept]
    title = "Diffusion Classifier, staged"
    parity(title, "scores of 5 classes x 3 images", "loops over stages", prediction.output, -192 * expected, 1e-4)
    assert [cost.nfe_forward for cost in prediction.costs] == [5 * 2 + 3 * 8] * 3
