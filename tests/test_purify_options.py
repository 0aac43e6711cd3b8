"""What each option of `purify` and `sample` does, against a loop by hand over the exact prior."""

import pytest
import torch

from diffcern.errors import DiffcernError, UsageError
from diffcern.guides import Guide, LowPass, mean_square
from diffcern.priors import GaussianMixturePrior
from diffcern.rng import generator
from diffcern.sampling import bounded, estimate, purify, sample
from diffcern.solvers import Solver
from diffcern.types import Condition

IDS = ["a", "b", "c"]
CLASSES = Condition(classes=torch.eye(2)[[0, 1, 1]])


@pytest.fixture
def prior():
    means = torch.stack([torch.full((3, 4, 4), value) for value in (-0.6, 0.5)])
    return GaussianMixturePrior(means, std=0.3)


@pytest.fixture
def latents():
    return torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0)).clamp(-2, 2)


def noise_of(purpose, seed=0, ids=IDS):
    rngs = [generator(seed, purpose, id) for id in ids]
    return torch.stack([torch.randn(3, 4, 4, generator=rng) for rng in rngs]), rngs


def by_hand(prior, x, rngs, start, steps, solver, eta, condition, scale=1.0, clip=False):
    process = Solver(prior, solver, start, steps, eta)
    for index, t in enumerate(process.timesteps):
        times = t.expand(len(x))
        x0, null = (prior(x, times, told).x0 for told in (condition, Condition()))
        x0 = null + scale * (x0 - null)
        x = process.step(index, x0.clamp(-1, 1) if clip else x0, x, rngs)
    return x


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"solver": "ddim"},
        {"solver": "ddim", "eta": 0.7},
        {"solver": "ddim", "guidance_scale": 2.5},
        {"seed": 3},
        {"rows": 2},
        {"rows": 1, "solver": "ddim", "guidance_scale": 0.5},
    ],
)
def test_a_sample_is_the_loop_from_noise(prior, options):
    """From sigma eps with eps of (seed, "sample", id), x0_hat = null + s (conditional - null) at each step."""
    x, rngs = noise_of("sample", options.get("seed", 0))
    scale, eta = options.get("guidance_scale", 1.0), options.get("eta", 0.0)
    expected = by_hand(prior, x, rngs, 999, 6, options.get("solver", "ddpm"), eta, CLASSES, scale)
    assert torch.allclose(sample(prior, IDS, CLASSES, steps=6, **options), expected, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"solver": "ddim"},
        {"solver": "ddim", "eta": 0.7},
        {"seed": 3},
        {"rows": 2},
        {"condition": CLASSES},
        {"condition": CLASSES, "rows": 1},
    ],
)
def test_purified_is_the_loop_from_the_noised_latent(prior, latents, options):
    noise, rngs = noise_of("purify", options.get("seed", 0))
    x = prior.add_noise(latents, torch.full((3,), 500), noise)
    condition, eta = options.get("condition", Condition()), options.get("eta", 0.0)
    expected = by_hand(prior, x, rngs, 500, 6, options.get("solver", "ddpm"), eta, condition)
    assert torch.allclose(purify(prior, latents, IDS, start=500, steps=6, **options), expected, atol=1e-5)


def test_pixels_are_kept_in_their_range(prior, latents):
    """The estimate of each step, of a prior of pixels, unless told otherwise; of other latents never."""
    x0 = torch.tensor([-3.0, 0.5, 2.0]).view(1, 1, 1, 3)
    assert torch.equal(bounded(prior, x0), x0)
    prior.pixels = True
    assert bounded(prior, x0).flatten().tolist() == [-1.0, 0.5, 1.0]
    noise, rngs = noise_of("purify")
    x = prior.add_noise(3 * latents, torch.full((3,), 100), noise)
    expected = by_hand(prior, x, rngs, 100, 4, "ddpm", 0.0, Condition(), clip=True)
    assert torch.allclose(purify(prior, 3 * latents, IDS, start=100, steps=4), expected, atol=1e-5)
    start, rngs = noise_of("sample")
    expected = by_hand(prior, start, rngs, 999, 4, "ddim", 0.0, CLASSES, scale=4.0, clip=True)
    guided = sample(prior, IDS, CLASSES, steps=4, solver="ddim", guidance_scale=4.0)
    assert torch.allclose(guided, expected, atol=1e-5)
    assert guided.abs().max() <= 1


def test_guidance_mixes_estimates(prior, latents):
    """x0_hat = null + s (x0_hat(c) - null); at s = 1 the unconditional estimate is not even asked for."""
    asked = []
    prior.register_forward_hook(lambda module, given, made: asked.append(len(given[2])))
    t = torch.tensor(400)
    told, null, guided = (
        estimate(prior, latents, t, condition, scale)
        for condition, scale in ((CLASSES, 1.0), (Condition(), 1.0), (CLASSES, 3.0))
    )
    assert asked == [3, 0, 3, 0]
    assert torch.allclose(guided, null + 3 * (told - null))


def test_half_precision_latents_come_back_in_fp32(prior, latents):
    half = latents.half()
    purified = purify(prior, half, IDS, start=500, steps=3)
    assert purified.dtype == torch.float32
    assert torch.allclose(purified, purify(prior, half.float(), IDS, start=500, steps=3))


def test_nothing_is_purified_to_nothing(prior):
    empty = purify(prior, torch.zeros(0, 3, 4, 4).half(), [], start=500, steps=3)
    assert empty.shape == (0, 3, 4, 4)
    assert empty.dtype == torch.float32


@pytest.mark.parametrize("ids", [["a", "b"], ["a", "b", "c", "d"]])
def test_every_latent_has_an_id(prior, latents, ids):
    with pytest.raises(UsageError, match=f"3 latents, {len(ids)} ids"):
        purify(prior, latents, ids, start=500, steps=3)


def test_a_guide_is_checked_before_any_work(prior, latents):
    with pytest.raises(UsageError, match=r"multiples of the factor 3, not \[4, 4\]"):
        purify(prior, latents, IDS, start=500, steps=3, guide=Guide([(1.0, LowPass(3, "zeros"))]))


def test_one_latent_that_is_not_finite_is_an_error(prior, latents):
    """Among others that are; and what to do about it depends on whether there is a guide."""
    latents[1, 0, 0, 0] = torch.nan
    with pytest.raises(DiffcernError, match="use fp32 or bf16, or another solver"):
        purify(prior, latents, IDS, start=500, steps=3)
    classes = CLASSES.classes.clone()
    classes[1] = torch.nan
    with pytest.raises(DiffcernError, match="use fp32 or bf16, or another solver"):
        sample(prior, IDS, Condition(classes=classes), steps=3)
    with pytest.raises(DiffcernError, match="lower the guide's weight"):
        purify(prior, latents, IDS, start=500, steps=3, guide=Guide([(1.0, mean_square)], "estimate"))


@pytest.mark.parametrize("form", ["through", "estimate"])
def test_a_guide_follows_the_published_order_of_a_step(prior, latents, form):
    """x_{t-1} = solver(x_t, x0_hat) - variance * grad of the energy at s x0_hat + (1 - s) x_t, s = sigma_t."""
    guide = Guide([(40.0, mean_square)], form, mixed=True, scaled=True)
    noise, rngs = noise_of("purify")
    x = prior.add_noise(latents, torch.full((3,), 500), noise)
    process = Solver(prior, "ddpm", 500, 4)
    for index, t in enumerate(process.timesteps):
        x = x.detach().requires_grad_()
        x0 = prior(x, t.expand(3), Condition()).x0
        known = x0 if form == "through" else x0.detach().requires_grad_()
        sigma = prior.sigmas[t]
        seen = sigma * known + (1 - sigma) * (x if form == "through" else x.detach())
        energy = 40 * (latents - seen).square().flatten(1).mean(1).sum()
        gradient = torch.autograd.grad(energy, x if form == "through" else known)[0]
        x = process.step(index, x0.detach(), x.detach(), rngs) - process.variance(index) * gradient
    guided = purify(prior, latents, IDS, start=500, steps=4, guide=guide)
    assert not guided.requires_grad
    assert torch.allclose(guided, x, atol=1e-5)
