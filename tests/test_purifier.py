"""A purifier: images in and out, what names an entry of its cache, and what is not made twice."""

import dataclasses

import pytest
import torch

from diffcern import purifier as module
from diffcern.cache import TensorCache
from diffcern.errors import UsageError
from diffcern.guides import Guide, LowPass
from diffcern.priors import GaussianMixturePrior
from diffcern.purifier import Purifier, Route
from diffcern.sampling import purify

ROUTE = Route(500, 3)


@pytest.fixture
def made(monkeypatch):
    """The ids and options of every call of `purify`."""
    calls = []

    def spied(prior, latents, ids, **options):
        calls.append((list(ids), options))
        return purify(prior, latents, ids, **options)

    monkeypatch.setattr(module, "purify", spied)
    return calls


def test_images_go_through_the_latents(prior, inputs):
    """decode(purify(encode(x))), with all that the route says, the seed and the rows."""
    prior.pixels = True
    route = Route(300, 4, "ddim", eta=0.5, clip=False)
    guide = Guide([(0.2, LowPass(4))])
    options = {"start": 300, "steps": 4, "solver": "ddim", "eta": 0.5, "clip": False}
    latents = purify(prior, prior.encode(inputs.images), inputs.ids, guide=guide, seed=7, **options)
    purified = Purifier(prior, route, guide, rows=5)(inputs.images, inputs.ids, 7)
    assert torch.allclose(purified, prior.decode(latents), atol=1e-5)
    assert 0 <= purified.min() <= purified.max() <= 1


def test_rows_bound_what_is_purified_at_once(prior, inputs, made):
    Purifier(prior, ROUTE, rows=5)(inputs.images, inputs.ids)
    assert made[0][1]["rows"] == 5


@pytest.mark.parametrize(("solver", "evaluations"), [("ddpm", 3), ("one-shot", 1)])
def test_evaluations_are_the_solvers(prior, solver, evaluations):
    assert Purifier(prior, dataclasses.replace(ROUTE, solver=solver)).evaluations == evaluations


@pytest.mark.parametrize(
    ("route", "guide", "message"),
    [
        (Route(1000, 3), None, "0 to 999"),
        (Route(500, 3, eta=0.5), None, "eta belongs to ddim"),
        (ROUTE, Guide([(1.0, LowPass(3, "zeros"))]), "multiples of the factor 3"),
    ],
)
def test_what_does_not_fit_is_refused_when_it_is_made(prior, route, guide, message):
    with pytest.raises(UsageError, match=message):
        Purifier(prior, route, guide)


@pytest.mark.parametrize(
    ("field", "value"), [("start", 501), ("steps", 4), ("solver", "ddim"), ("eta", 0.5), ("clip", False)]
)
def test_every_part_of_a_route_names_its_entries(prior, field, value):
    base = dataclasses.replace(ROUTE, solver="ddim", eta=0.1) if field == "eta" else ROUTE
    other = dataclasses.replace(base, **{field: value})
    assert Purifier(prior, base).identity == Purifier(prior, base).identity != Purifier(prior, other).identity


def test_prior_and_settings_name_entries_too(prior):
    wider = GaussianMixturePrior(prior.means, std=0.31)
    named = {
        Purifier(prior, ROUTE).identity,
        Purifier(wider, ROUTE).identity,
        Purifier(prior, ROUTE, settings={"factor": 4}).identity,
        Purifier(prior, ROUTE, settings={"factor": 2}).identity,
    }
    assert len(named) == 4
    settings = {"factor": 4}
    purifier = Purifier(prior, ROUTE, settings=settings)
    settings["factor"] = 2  # what the caller does with it later is not its own
    assert purifier.identity == Purifier(prior, ROUTE, settings={"factor": 4}).identity


def test_only_what_is_missing_is_made(prior, inputs, made, tmp_path):
    """By prior, settings, image, id and seed; and in the order that was asked for."""
    whole = Purifier(prior, ROUTE)(inputs.images, inputs.ids)
    made.clear()
    purifier = Purifier(prior, ROUTE, cache=TensorCache(tmp_path), rows=5)
    purifier(inputs.images[[3, 1]], [inputs.ids[3], inputs.ids[1]])
    assert torch.allclose(purifier(inputs.images, inputs.ids), whole, atol=1e-5)
    assert [ids for ids, _ in made] == [["image-3", "image-1"], [id for id in inputs.ids if id not in made[0][0]]]
    assert torch.allclose(purifier(inputs.images, inputs.ids), whole, atol=1e-5)
    assert len(made) == 2
    one, id = inputs.images[:1], inputs.ids[:1]
    for images, ids, seed in ((one, id, 1), (one, ["another"], 0), (one * 0.5, id, 0)):
        found = purifier(images, ids, seed)
        assert torch.allclose(found, Purifier(prior, ROUTE)(images, ids, seed), atol=1e-5)
        assert not torch.allclose(found, whole[:1], atol=1e-2)
    Purifier(prior, Route(500, 4), cache=TensorCache(tmp_path))(one, id)
    assert [ids for ids, _ in made[2:] if ids] == [id, id, ["another"], ["another"], id, id, id]


def test_images_of_any_sizes(prior, tmp_path):
    images = [torch.rand(3, 8, 8), torch.rand(3, 5, 11)]
    for cache in (None, TensorCache(tmp_path)):
        assert Purifier(prior, ROUTE, cache=cache)(images, ["a", "b"]).shape == (2, 3, 8, 8)


@pytest.mark.parametrize("ids", [["a"], ["a", "b", "c"]])
def test_every_image_has_an_id(prior, inputs, ids, tmp_path):
    for cache in (None, TensorCache(tmp_path)):
        with pytest.raises((UsageError, ValueError)):
            Purifier(prior, ROUTE, cache=cache)(inputs.images[:2], ids)
