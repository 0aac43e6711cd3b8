"""DiffPure, DDA, GDA and SDA: whole loops of several images and steps, written out."""

import math

import pytest
import torch

from diffcern.feature_guides import MarginalEntropy
from diffcern.guides import Guide, LowPass, mean_square
from diffcern.methods.purified import join
from diffcern.rng import generator
from diffcern.sampling import purify
from diffcern.solvers import Solver

from .conftest import x0_of

START, STEPS, WEIGHT = 399, 8, 0.3
LOOP = "the loop, written out"


@pytest.fixture
def latents(three, network):
    return network.encode(three.images)


def by_hand(prior, latents, ids, step, start=START, steps=STEPS, seed=0):
    """x_t* = alpha x + sigma eps, then step(k, x_t, reference, times, rng) for the respaced times, downwards."""
    used = [round((k + 1) / steps * (start + 1)) - 1 for k in range(steps)]
    results = []
    for b, id in enumerate(ids):
        rng, reference = generator(seed, "purify", id), latents[b : b + 1]
        noise = torch.randn(latents.shape[1:], generator=rng)
        x = prior.alphas[used[-1]] * reference + prior.sigmas[used[-1]] * noise
        for k in reversed(range(steps)):
            x = step(k, x.detach(), reference, used, rng)
        results.append(x.detach())
    return torch.cat(results)


def coefficients(prior, used, k):
    """alpha-bar now and at the next time, and beta between them, in double precision."""
    bar = prior.alphas[used[k]].double().item() ** 2
    before = prior.alphas[used[k - 1]].double().item() ** 2 if k else 1.0
    return bar, before, 1 - bar / before


def ancestral(prior, x, x0, used, k, rng):
    """Ho et al. 2020, eq. 7: the posterior's mean and variance given x0."""
    bar, before, beta = coefficients(prior, used, k)
    mean = math.sqrt(before) * beta / (1 - bar) * x0 + math.sqrt(1 - beta) * (1 - before) / (1 - bar) * x
    noise = torch.randn(x.shape[1:], generator=rng) if k else torch.zeros(())
    return mean + math.sqrt(beta * (1 - before) / (1 - bar)) * noise


def at(t):
    return torch.tensor([t])


def test_ancestral_steps(network, latents, three, parity):
    ours = purify(network, latents, three.ids, start=START, steps=STEPS)

    def step(k, x, reference, used, rng):
        with torch.no_grad():
            x0 = x0_of(network, x, at(used[k])).clamp(-1, 1)
        return ancestral(network, x, x0, used, k, rng)

    expected = by_hand(network, latents, three.ids, step)
    parity("DiffPure, ancestral", "3 images after 8 steps", LOOP, ours, expected, 1e-4)


def test_reverse_sde(network, latents, three, parity):
    """x + (beta / 2) x + beta s + sqrt(beta) z at every timestep, without clipping."""
    ours = purify(network, latents, three.ids, start=24, steps=25, solver="reverse-sde", clip=False)

    def step(k, x, reference, used, rng):
        _, _, beta = coefficients(network, used, k)
        with torch.no_grad():
            x0 = x0_of(network, x, at(used[k]))
        score = (network.alphas[used[k]] * x0 - x) / network.sigmas[used[k]] ** 2
        return x + beta / 2 * x + beta * score + math.sqrt(beta) * torch.randn(x.shape[1:], generator=rng)

    expected = by_hand(network, latents, three.ids, step, 24, 25)
    parity("DiffPure, reverse SDE", "3 images after 25 steps", LOOP, ours, expected, 1e-3)


@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_ddim(eta, network, latents, three, parity):
    """Song et al. 2021, eq. 12."""
    ours = purify(network, latents, three.ids, start=START, steps=STEPS, solver="ddim", eta=eta)

    def step(k, x, reference, used, rng):
        bar, before, _ = coefficients(network, used, k)
        with torch.no_grad():
            x0 = x0_of(network, x, at(used[k])).clamp(-1, 1)
        eps = (x - math.sqrt(bar) * x0) / math.sqrt(1 - bar)
        spread = eta * math.sqrt((1 - before) / (1 - bar)) * math.sqrt(1 - bar / before)
        noise = torch.randn(x.shape[1:], generator=rng) if eta else torch.zeros(())
        return math.sqrt(before) * x0 + math.sqrt(1 - before - spread**2) * eps + spread * noise

    expected = by_hand(network, latents, three.ids, step)
    parity(f"DDIM, eta {eta}", "3 images after 8 steps", LOOP, ours, expected, 1e-3)


@pytest.mark.parametrize("form", ["through", "estimate"])
def test_dda(form, network, latents, three, parity):
    """x_{t-1} = x' - w grad || Phi(x) - Phi(clamped x0_hat) ||_2; the filter by its own test."""
    low_pass = LowPass(4, "zeros")
    guide = Guide([(WEIGHT, low_pass)], form, bounded=True)
    ours = purify(network, latents, three.ids, start=START, steps=STEPS, guide=guide)

    def step(k, x, reference, used, rng):
        x = x.requires_grad_(form == "through")
        x0 = x0_of(network, x, at(used[k]))
        x0 = x0 if form == "through" else x0.detach().requires_grad_()
        energy = (low_pass.filter(reference) - low_pass.filter(x0.clamp(-1, 1))).norm()
        gradient = torch.autograd.grad(energy, x if form == "through" else x0)[0]
        return ancestral(network, x.detach(), x0.detach().clamp(-1, 1), used, k, rng) - WEIGHT * gradient

    expected = by_hand(network, latents, three.ids, step)
    parity(f"DDA, gradient {form}", "3 images after 8 steps", LOOP, ours, expected, 1e-3)


def test_ilvr(network, latents, three, parity):
    """x' + Phi(y_{t-1}) - Phi(x') with y the given image noised to that time (Choi et al. 2021, eq. 8)."""
    low_pass = LowPass(4)
    ours = purify(network, latents, three.ids, start=START, steps=STEPS, guide=Guide([(1.0, low_pass)], "replace"))

    def step(k, x, reference, used, rng):
        with torch.no_grad():
            x0 = x0_of(network, x, at(used[k])).clamp(-1, 1)
        following, noised = ancestral(network, x, x0, used, k, rng), reference
        if k:
            noise = torch.randn(x.shape[1:], generator=rng)
            noised = network.alphas[used[k - 1]] * reference + network.sigmas[used[k - 1]] * noise
        return following + low_pass.filter(noised) - low_pass.filter(following)

    expected = by_hand(network, latents, three.ids, step)
    parity("DDA, form replace", "3 images after 8 steps", LOOP, ours, expected, 1e-3)


def test_gda(network, latents, three, classifier, parity):
    """x' - Sigma grad_x_t (a H + b mse)(s x0_hat + (1 - s) x_t), s = sqrt(1 - alpha-bar)."""
    entropy = MarginalEntropy(classifier, views=3)
    guide = Guide([(5.0, entropy), (20.0, mean_square)], mixed=True, scaled=True)
    ours = purify(network, latents, three.ids, start=START, steps=STEPS, guide=guide)

    def step(k, x, reference, used, rng):
        x = x.requires_grad_()
        x0 = x0_of(network, x, at(used[k]))
        sigma = network.sigmas[used[k]]
        seen = sigma * x0 + (1 - sigma) * x
        energy = 5.0 * entropy(seen, reference).sum() + 20.0 * (reference - seen).square().mean()
        gradient = torch.autograd.grad(energy, x)[0]
        bar, before, beta = coefficients(network, used, max(k, 1))  # the last step has the variance of the one before
        variance = beta * (1 - before) / (1 - bar)
        return ancestral(network, x.detach(), x0.detach().clamp(-1, 1), used, k, rng) - variance * gradient

    expected = by_hand(network, latents, three.ids, step)
    parity("GDA", "3 images after 8 steps", LOOP, ours, expected, 1e-3)


@pytest.mark.parametrize("side", [16, 256])
def test_the_filter_of_dda(side, parity):
    """Down by 4 with Keys' kernel (a = -1/2), widened 4 times, and up again; zeros beyond the border."""
    x = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))

    def cubic(distance):
        d = abs(distance)
        return 1.5 * d**3 - 2.5 * d**2 + 1 if d <= 1 else -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2 if d < 2 else 0.0

    def matrix(rows, columns, scale):
        wide = max(1.0, 1 / scale)
        weights = torch.zeros(rows, columns, dtype=torch.float64)
        for i in range(rows):
            centre = (i + 0.5) / scale - 0.5
            near = range(int(centre - 2 * wide) - 1, int(centre + 2 * wide) + 3)
            total = sum(cubic((j - centre) / wide) for j in near)
            for j in near:
                if 0 <= j < columns:
                    weights[i, j] = cubic((j - centre) / wide) / total
        return weights

    once = (matrix(side, side // 4, 4) @ matrix(side // 4, side, 1 / 4)).float()
    parity(
        f"DDA's low pass, {side} pixels",
        "filtered image",
        "the kernel, summed",
        LowPass(4, "zeros").filter(x),
        once @ x @ once.T,
        1e-4,
    )


def test_the_respaced_times(network, parity):
    """50 of 1,000 from index 499, both ends included."""
    ours = Solver(network, "ddpm", 499, 50).timesteps.double()
    parity("DDA", "50 respaced times", "10 k - 1", ours, torch.arange(499.0, 0, -10).double(), 0.0)


def test_ensembles(parity):
    p, q = torch.rand(2, 6, 4, generator=torch.Generator().manual_seed(0)).softmax(-1)
    h = [-(x * x.log()).sum(-1) for x in (p, q)]
    top = [x.max(-1).values for x in (p, q)]
    wanted = {
        "sum": (p + q) / 2,
        "entropy": torch.stack([p[i] if h[0][i] <= h[1][i] else q[i] for i in range(6)]),
        "confidence": torch.stack([p[i] if top[0][i] >= top[1][i] else q[i] for i in range(6)]),
        "confidence-sum": (top[0][:, None] * p + top[1][:, None] * q) / (top[0] + top[1])[:, None],
    }
    for name, expected in wanted.items():
        parity("SDA and DDA", f"the ensemble {name}", "its definition", join(p, q, name), expected)
