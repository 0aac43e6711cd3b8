"""Candidates compared under the same noise on the picture that they are made of."""

import math

import pytest
import torch

from diffcern.canonical import Search, canonical_view
from diffcern.data import load_dataset
from diffcern.data.shifts import shift
from diffcern.evidence import Evidence
from diffcern.noise_levels import noise_at, time_of
from diffcern.predictors import load_predictor
from diffcern.priors import GaussianMixturePrior, load_prior
from diffcern.transformations import IDENTITY, Transformation
from diffcern.weighing import Scale


def test_what_is_compared_is_how_far_noisy_views_are_from_the_noisy_prior():
    """Of one Gaussian KL(N(g, m^2) | N(mu, s^2 + m^2)) is a closed form, m the noise after the view has stretched it;
    what the Jacobian adds is in it."""
    rng = torch.Generator().manual_seed(0)
    s, mean = 0.3, 0.2 * torch.randn(1, 3, 8, 8, generator=rng)
    prior = GaussianMixturePrior(mean, std=s)
    image = ((mean + 0.1 * torch.randn(1, 3, 8, 8, generator=rng) + 1) / 2).clamp(0, 1)
    views = [IDENTITY, Transformation((0.5,) * 3, (0.2,) * 3), Transformation((1.4, 1.6, 2.0), (-0.2,) * 3)]
    scale = Scale(prior, image, lambda image: image, "a", 0, Search())
    scale.noise = 0.0
    level = scale.level(views, 0.3)
    drawn = scale.draws(2000)
    found = scale.weigh(views, drawn, level)
    expected = []
    for view in views:
        m = noise_at(prior, time_of(prior, level * scale.stretch(view)))
        square, both = (scale.latent(view) - mean).square().sum().item(), s**2 + m**2
        size = mean.numel()
        expected.append(-(size * (m**2 / both - 1 + math.log(both / m**2)) + square / both) / 2)
    for k in (1, 2):
        over = Evidence(found[k : k + 1] - found[:1], drawn.timesteps)
        wanted = expected[k] - expected[0]
        assert abs(over.nats.item() - wanted) < 5 * over.standard_error.item() + 0.02 * abs(wanted)


@pytest.fixture(scope="module")
def scenes():
    data = load_dataset("embedded:scenes/validation")
    model = "embedded:scenes-depth"
    return load_prior(model), load_predictor(model), [data[k] for k in (0, 3)]


def found_for(scenes, what, **options):
    prior, predictor, samples = scenes
    search = Search(**{"families": ("colour", "haze"), "margin": 0.0, "budget": 160, **options})
    for sample in samples:
        image = shift(sample.image, what, 5, 0, sample.id)[None] if what else sample.image[None]
        yield canonical_view(prior, image, sample.id, search, looked_at=predictor.view), image


def test_a_clean_picture_is_not_likelier_for_being_stretched(scenes):
    """A bound that starts at the same noise for all of them gave a light up to a thousand nats for it."""
    for view, image in found_for(scenes, "", families=("light", "colour")):
        assert (view.transformation.apply(image) - image).abs().max() < 0.15, view


def test_the_strongest_contrast_shift_is_undone(scenes):
    """Of a twentieth of the contrast, less than thirteen grey levels."""
    for view, _ in found_for(scenes, "contrast"):
        assert 12 < sum(view.transformation.gain) / 3 < 30, view


def test_fog_is_taken_off(scenes):
    views = [view for view, _ in found_for(scenes, "fog")]
    assert all(view.transformation.veil and view.nats > 3 for view in views), views
    for view, _ in found_for(scenes, "", families=("haze",)):
        assert sum(view.transformation.veil) / 192 < 0.05
