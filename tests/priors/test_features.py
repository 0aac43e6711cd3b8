"""Priors of features: what is encoded, what is saved, and what such a prior refuses."""

import dataclasses
import json
import shutil

import pytest
import torch

from diffcern import load_predictor, load_prior
from diffcern.assets import asset
from diffcern.data import load_dataset, subset
from diffcern.errors import DiffcernError, UsageError
from diffcern.evidence import check_pixels
from diffcern.fingerprints import fingerprint
from diffcern.methods import build_method
from diffcern.predictors.encoder import feature_map
from diffcern.priors.features import new_autoencoder
from diffcern.tasks import Classification
from diffcern.train.prior import train_prior
from diffcern.train.recipes import PriorRecipe, Regime
from diffcern.types import Inputs

CPU = torch.device("cpu")
DATA = subset(load_dataset("embedded:digits/train"), 60, 0)
RECIPE = PriorRecipe(image_size=16, width=32, depth=2, heads=2, patch=1, encoder="embedded:digits")


def images(count=6):
    return torch.stack([DATA[i].image for i in range(count)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("representation") / "prior"
    train_prior(DATA, RECIPE, Regime(images=40 * 16, batch_size=16, learning_rate=3e-3), out, device=CPU)
    return out


def test_latents_are_the_encoders_last_map_standardised(folder):
    prior, encoder = load_prior(str(folder)), load_predictor("embedded:digits")
    seen = feature_map(encoder, images())
    mean, deviation = (
        torch.tensor(prior.autoencoder.features.__dict__[k]).view(-1, 1, 1) for k in ("mean", "deviation")
    )
    latents = prior.encode(images())
    assert prior.latent_shape == (64, 4, 4)
    assert not prior.pixels
    torch.testing.assert_close(latents, (seen - mean) / deviation, atol=1e-4, rtol=1e-4)
    assert latents.std().item() == pytest.approx(1, abs=0.2)
    assert torch.equal(latents[2:3], prior.encode(images()[2:3]))  # in any company
    torch.testing.assert_close(prior.autoencoder.together(images()), latents, atol=1e-4, rtol=1e-4)
    asked = images(1).requires_grad_()
    assert torch.autograd.grad(prior.encode(asked).square().sum(), asked)[0].abs().sum() > 0  # an attack goes through


def test_the_decoder_learns_the_picture_and_the_encoder_nothing(folder):
    prior = load_prior(str(folder))
    decoded = prior.decode(prior.encode(images(30)))
    assert decoded.shape == (30, 3, 16, 16)
    truth = images(30)
    assert ((decoded - truth) ** 2).mean() < 0.5 * truth.var()
    ours = load_predictor("embedded:digits").state_dict()
    assert all(torch.equal(value, ours[name]) for name, value in prior.autoencoder.encoder.state_dict().items())


@pytest.mark.slow
def test_training_goes_on_where_it_stopped(folder, tmp_path):
    for minutes in (0.0, float("inf")):
        regime = Regime(images=40 * 16, batch_size=16, learning_rate=3e-3, minutes=minutes)
        prior, _ = train_prior(DATA, RECIPE, regime, tmp_path / "again", device=CPU)
    whole = load_prior(str(folder))
    for mine, theirs in zip(prior.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-3, rtol=2e-3)  # what is saved is in half precision


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "decoder.safetensors").unlink(), "decoder.safetensors"),
        (lambda f: shutil.rmtree(f / "encoder"), "encoder/"),
        (lambda f: rewrite(f / "features.json", mean=[0.0]), "as many deviations as means"),
        (lambda f: rewrite(f / "features.json", doublings=1), "do not fit features.json"),
    ],
)
def test_damaged_folders_are_named(folder, tmp_path, damage, message):
    shutil.copytree(folder, tmp_path / "copy")
    damage(tmp_path / "copy" / "autoencoder")
    with pytest.raises(DiffcernError, match=message):
        load_prior(str(tmp_path / "copy"))


def rewrite(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": "timm:resnet18"}, "folder of a predictor"),
        ({"maps": "depth"}, "leave --maps and --grey out"),
        ({"channels": 1}, "leave --maps and --grey out"),
        ({"align": "embedded:digits"}, "give one of the two"),
        ({"patch": 8}, "side of the encoder's map, 4"),
        ({"image_size": 20}, "not halved a few times"),
    ],
)
def test_recipes_that_cannot_be_built(tmp_path, changes, message):
    recipe = dataclasses.replace(RECIPE, **changes)
    with pytest.raises(UsageError, match=message):
        train_prior(DATA, recipe, Regime(16, 16, 1e-3), tmp_path / "out", device=CPU)


def test_an_encoder_without_maps_is_refused():
    with pytest.raises(UsageError, match="folder of a predictor"):
        new_autoencoder(str(asset("digits", "prior")), images())


def test_another_standardisation_is_another_prior(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    file = tmp_path / "copy" / "autoencoder" / "features.json"
    rewrite(file, mean=[value + 1 for value in json.loads(file.read_text())["mean"]])
    assert fingerprint(load_prior(str(tmp_path / "copy"))) != fingerprint(load_prior(str(folder)))


def test_features_have_no_likelihood_of_images(folder):
    with pytest.raises(UsageError, match="no likelihood of images"):
        check_pixels(load_prior(str(folder)))
    check_pixels(load_prior("embedded:digits"))


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("diffusion-classifier", {"draws": 4}),
        ("diffusion-tta", {"steps": 1, "draws": 2}),
        ("dda", {"start": 20, "steps": 5, "factor": 2}),
    ],
)
def test_methods_take_such_a_prior(folder, method, options):
    prior, predictor = load_prior(str(folder)), load_predictor("embedded:digits")
    task = Classification(predictor.class_names, prior.class_names)
    made = build_method(method, predictor, prior, task, options)
    answers = made.step(made.init(), Inputs(images(3), ["a", "b", "c"]), 0)[0]
    assert torch.isfinite(answers.probabilities).all()
