"""start = "auto": each image from the level of the noise in it."""

import hub_checkpoints
import pytest
import torch

from diffcern.cache import TensorCache
from diffcern.data import load_dataset
from diffcern.data.shifts import shift
from diffcern.errors import UsageError
from diffcern.methods import build_method
from diffcern.predictors import load_predictor
from diffcern.priors import load_prior
from diffcern.purifier import Purifier, Route
from diffcern.tasks import Classification
from diffcern.types import Inputs

AUTO = Route("auto", 10, "one-shot")


@pytest.fixture(scope="module")
def world():
    data = load_dataset("embedded:digits/validation")
    return load_prior("embedded:digits"), [data[k] for k in range(0, 120, 10)]


def test_clean_images_stay_and_noisy_ones_are_denoised_in_one_step(world):
    prior, samples = world
    clean = torch.stack([s.image for s in samples])
    noisy = torch.stack([shift(s.image, "noise", 4, 0, s.id) for s in samples])
    ids = [s.id for s in samples]
    purifier = Purifier(prior, AUTO)
    kept = purifier(clean, ids)
    same = prior.decode(prior.encode(clean))
    assert sum(torch.equal(a, b) for a, b in zip(kept, same, strict=True)) >= len(samples) - 3
    assert (purifier(noisy, ids) - same).square().mean() < (
        prior.decode(prior.encode(noisy)) - same
    ).square().mean() / 2
    paths = purifier.paths(noisy, ids)
    assert all(path.route and path.route.steps == 10 and path.route.start > 50 for path in paths)
    assert all(path.evaluations <= purifier.evaluations == 29 for path in paths)


def test_noise_that_is_there_is_not_added_again(world):
    """From its own level an image is taken as it is: another seed leads to the same image."""
    prior, samples = world
    noisy = shift(samples[0].image, "noise", 4, 0, "x")[None]
    path = AUTO.of_image(prior, prior.encode(noisy), "x", 0)
    sigma, alpha = prior.sigmas[path.route.start].item(), prior.alphas[path.route.start].item()
    assert path.route.noise == pytest.approx(sigma / alpha, rel=0.02)
    first, second = (Purifier(prior, path.route)(noisy, ["x"], seed) for seed in (0, 1))
    assert (first - second).abs().max() < 0.05
    plain = Route(path.route.start, 10, "one-shot")
    other, another = (Purifier(prior, plain)(noisy, ["x"], seed) for seed in (0, 1))
    assert (other - another).abs().max() > 0.15


def test_an_image_s_way_does_not_depend_on_its_batch_or_the_cache(world, tmp_path):
    prior, samples = world
    images = torch.stack([shift(s.image, "pepper", 3, 0, s.id) for s in samples])
    ids = [s.id for s in samples]
    together = Purifier(prior, AUTO)(images, ids)
    cached = Purifier(prior, AUTO, cache=TensorCache(tmp_path))
    for _ in range(2):
        assert torch.allclose(cached(images[4:6], ids[4:6]), together[4:6], atol=1e-5)


def test_an_autoencoder_s_latents_have_no_such_level(tmp_path):
    prior = load_prior(str(hub_checkpoints.dit(tmp_path / "dit")))
    with pytest.raises(UsageError, match="by a prior of pixels"):
        Purifier(prior, AUTO)


@pytest.mark.parametrize("name", ["diffpure", "dda"])
def test_methods_say_what_each_image_took(world, name):
    prior, samples = world
    predictor = load_predictor("embedded:digits")
    task = Classification(predictor.class_names, prior.class_names)
    clip = {"clip": True} if name == "diffpure" else {}
    method = build_method(name, predictor, prior, task, {"start": "auto", "steps": 5, "solver": "ddim", **clip})
    images = torch.stack([samples[0].image, shift(samples[1].image, "noise", 5, 0, "y")])
    costs = method.step(None, Inputs(images, ["x", "y"]), 0)[0].costs
    assert costs[0].nfe_forward < costs[1].nfe_forward <= method.evaluations
