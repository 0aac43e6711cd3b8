"""Evidence in nats, against the closed form of the exact prior."""

import math

import pytest
import torch

from diffcern.errors import UsageError
from diffcern.evidence import Evidence, evidence
from diffcern.priors import GaussianMixturePrior, load_prior
from diffcern.priors.schedule import Schedule
from diffcern.types import Condition

IDS = [f"image-{k}" for k in range(6)]
CLASSES = torch.arange(6) % 4


@pytest.fixture
def exact():
    rng = torch.Generator().manual_seed(0)
    return GaussianMixturePrior(0.4 * torch.randn(4, 3, 8, 8, generator=rng), std=0.3)


@pytest.fixture
def latents(exact):
    return exact.means[CLASSES] + 0.3 * torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def close(found, expected):
    """Within four standard errors, and by less than 20 of them over six images."""
    z = ((found.nats - expected) / found.standard_error).abs()
    return bool((z < 4).all()) and bool((found.standard_error < 5).all())


def as_flow(exact):
    """The same prior on straight paths, which end in noise alone."""
    sigmas = torch.arange(1, 1001, dtype=torch.float64) / 1000
    exact.set_schedule(Schedule("eps", 1 - sigmas, sigmas, torch.arange(1000)))
    return exact


@pytest.mark.parametrize("schedule", ["variance preserving", "flow"])
def test_the_exact_prior_s_evidence_is_its_likelihood(exact, latents, schedule):
    prior = as_flow(exact) if schedule == "flow" else exact
    truth = prior.log_likelihood(latents).double()
    told = Condition(classes=torch.eye(4)[CLASSES])
    assert close(evidence(prior, latents, IDS, condition=told, draws=600), truth[torch.arange(6), CLASSES])
    unconditional = truth.logsumexp(1) - math.log(4)
    found = evidence(prior, latents, IDS, draws=600)
    assert close(found, unconditional)
    apart = evidence(prior, latents, IDS, draws=600, condition=Condition(classes=torch.eye(4)[(CLASSES + 1) % 4]))
    assert (
        close(found.over(apart), unconditional - truth[torch.arange(6), (CLASSES + 1) % 4])
        or (found.over(apart).nats > 100).all()
    )


def test_a_gain_costs_what_its_jacobian_says(exact, latents):
    """p(g x) |det J_g| of x -> g x + b, paired: the same noise for both."""
    gain, offset = 1.3, 0.1
    moved = gain * latents + offset
    difference = evidence(exact, moved, IDS, draws=400).over(evidence(exact, latents, IDS, draws=400))
    truth = exact.log_likelihood(moved).logsumexp(1) - exact.log_likelihood(latents).logsumexp(1)
    assert close(difference, truth.double())


def test_noise_s_own_length_is_taken_off(exact, latents):
    """Many seeds: the mean stays, and the deviation is no more than the standard error says."""
    runs = [evidence(exact, latents[:1], IDS[:1], draws=32, seed=seed) for seed in range(60)]
    nats = torch.stack([run.nats[0] for run in runs])
    claimed = torch.stack([run.standard_error[0] for run in runs]).square().mean().sqrt()
    truth = exact.log_likelihood(latents[:1]).logsumexp(1).item() - math.log(4)
    assert abs(nats.mean().item() - truth) < 4 * nats.std().item() / 60**0.5
    assert 0.3 < nats.std() / claimed < 1.2  # which has the change with time in it


def test_from_some_noise_on_it_is_still_a_bound(exact, latents):
    truth = exact.log_likelihood(latents).logsumexp(1).double() - math.log(4)
    for low in (0.2, 0.4, 0.6):
        found = evidence(exact, latents, IDS, draws=400, low=low)
        assert (found.nats < truth + 4 * found.standard_error).all()


def test_an_image_has_its_own_draws(exact, latents):
    together = evidence(exact, latents, IDS)
    alone = evidence(exact, latents[3:4], IDS[3:4])
    assert torch.allclose(together.nats[3:4], alone.nats, atol=1e-2)
    assert torch.equal(together.timesteps[3], alone.timesteps[0])
    same = evidence(exact, latents[:2], ["a", "a"])  # two candidates for one image
    assert torch.equal(same.timesteps[0], same.timesteps[1])


def test_a_shipped_prior_finds_digits_likelier_than_noise():
    prior = load_prior("embedded:digits")
    from diffcern.data import load_dataset

    data = load_dataset("embedded:digits/validation")
    digits = torch.stack([data[k].image for k in range(4)])
    shuffled = digits.flatten(2)[..., torch.randperm(256, generator=torch.Generator().manual_seed(0))].view_as(digits)
    ids = [data[k].id for k in range(4)]
    better = evidence(prior, prior.encode(digits), ids, low=0.2).over(
        evidence(prior, prior.encode(shuffled), ids, low=0.2)
    )
    assert isinstance(better, Evidence)
    assert (better.nats > 3 * better.standard_error).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"low": 1.0}, "from 0 to below 1"),
        ({"low": 0.9995}, "two timesteps above it"),
        ({"draws": 1}, "two draws or more"),
        ({"condition": Condition(classes=torch.eye(4)[:1])}, "one condition row for each latent"),
    ],
)
def test_what_is_refused(exact, latents, options, message):
    with pytest.raises(UsageError, match=message):
        evidence(exact, latents, IDS, **options)
