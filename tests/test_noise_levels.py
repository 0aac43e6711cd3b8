"""How much noise an image has in it, against noise that was put there."""

import math

import pytest
import torch

from diffcern.data import load_dataset
from diffcern.data.shifts import shift
from diffcern.errors import UsageError
from diffcern.evidence import evidence
from diffcern.noise_levels import noise_level, noise_of, time_of
from diffcern.priors import GaussianMixturePrior, load_prior


@pytest.fixture(scope="module")
def world():
    prior, data = load_prior("embedded:digits"), load_dataset("embedded:digits/validation")
    return prior, [data[k] for k in range(0, 50, 10)]


def noisy(latent, sigma, seed):
    return latent + sigma * torch.randn(latent.shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sigma", [0.0, 0.2, 0.4, 0.8, 1.6])
def test_the_noise_that_was_added_is_found(world, sigma):
    prior, samples = world
    found = [noise_level(prior, noisy(prior.encode(s.image[None]), sigma, k), s.id) for k, s in enumerate(samples)]
    levels = torch.tensor([level.noise for level in found])
    assert levels.median().item() == pytest.approx(sigma, rel=0.2, abs=0.1)
    assert levels.max().item() <= max(0.15, 2.1 * sigma)
    assert all(level.evaluations <= 28 for level in found)


def test_speckles_are_noise_to_the_prior_and_not_to_a_filter(world):
    prior, samples = world
    latents = [prior.encode(shift(s.image, "pepper", 4, 0, s.id)[None]) for s in samples]
    filtered = torch.tensor([noise_of(latent) for latent in latents])
    told = torch.tensor([noise_level(prior, z, s.id).noise for z, s in zip(latents, samples, strict=True)])
    assert filtered.median() < 0.15
    assert told.median() > 0.2


def test_noise_is_louder_than_any_level(world):
    prior, _ = world
    level = noise_level(prior, noisy(torch.zeros(1, 1, 16, 16), 50.0, 0), "loud")
    assert level.noise < 10
    assert level.evaluations == 0
    assert noise_of(torch.zeros(1, 1, 16, 16)) == 0
    assert time_of(prior, 0.0) == 0
    assert time_of(prior, 1e9) == 0.8


def test_a_noisy_image_s_evidence_is_its_likelihood_under_the_noisy_prior():
    """N(m, s^2) with noise of n is N(m, s^2 + n^2): the closed form, from times just louder than the noise."""
    rng = torch.Generator().manual_seed(0)
    exact = GaussianMixturePrior(0.4 * torch.randn(4, 3, 8, 8, generator=rng), std=0.3)
    ids = [f"image-{k}" for k in range(6)]
    for n in (0.1, 0.3, 0.6):
        images = exact.means[torch.arange(6) % 4] + math.hypot(0.3, n) * torch.randn(6, 3, 8, 8, generator=rng)
        wider = GaussianMixturePrior(exact.means, std=math.hypot(0.3, n))
        truth = wider.log_likelihood(images).double().logsumexp(1) - math.log(4)
        low = time_of(exact, 1.02 * n) + 0.001
        found = evidence(exact, images, ids, draws=600, low=low, noise=n)
        assert (found.nats < truth + 4 * found.standard_error).all()
        assert (found.nats > truth - 4 * found.standard_error - 6).all()  # what reading it off loses
        other = evidence(exact, images, ids, draws=600, low=time_of(exact, 1.4 * 3 * n), noise=3 * n)
        assert (found.nats > other.nats).all()


def test_noise_as_loud_as_the_schedule_s_is_refused(world):
    prior, samples = world
    with pytest.raises(UsageError, match=r"noise of 2 in the latents is louder than the schedule's at low = 0.1"):
        evidence(prior, prior.encode(samples[0].image[None]), ["x"], low=0.1, noise=2.0)
