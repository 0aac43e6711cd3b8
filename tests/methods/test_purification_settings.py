"""What names a purified image in the cache, and what a method of purification is built from."""

import pytest
import torch

from diffcern.errors import UsageError
from diffcern.methods import build_method
from diffcern.methods.purification import ANSWERING, PURIFIERS, cache_at, unused_predictor
from diffcern.methods.purified import join
from diffcern.predictors import Predictor

SHORT = {"start": 300, "steps": 4}
CHANGES = {  # each of which makes another image
    "diffpure": {"start": 301, "steps": 5, "solver": "ddim", "eta": 0.5, "clip": True},
    "dda": {
        "start": 301, "steps": 5, "solver": "ddim", "eta": 0.5, "weight": 5.0, "factor": 2, "border": "inside",
        "form": "estimate", "bounded": False, "reference_batch_size": 4,
    },
    "gda": {
        "start": 301, "steps": 5, "solver": "ddim", "eta": 0.5, "form": "estimate", "scaled": False, "mixed": False,
        "entropy": 10.0, "mse": 100.0, "views": 3, "content": 0.5,
        "content_layer": "model.2",
    },
}  # fmt: skip
CONTENT = {"content": 0.1, "content_layer": "model.1"}


@pytest.fixture
def pixels(prior):
    """The exact prior, of pixels: GDA's views look at these."""
    prior.pixels = True
    return prior


@pytest.fixture
def build(predictor, pixels, task):
    return lambda name, **options: build_method(name, predictor, pixels, task, {**SHORT, **options})


@pytest.mark.parametrize(("name", "option"), [(name, option) for name in CHANGES for option in CHANGES[name]])
def test_whatever_changes_the_image_changes_its_name(build, name, option):
    base = {"eta": {"solver": "ddim"}, "content": CONTENT, "content_layer": CONTENT}.get(option, {})
    other = {**base, option: CHANGES[name][option]}
    one, again, two = (build(name, **options).purifier for options in (base, base, other))
    assert one.identity == again.identity != two.identity


@pytest.mark.parametrize("name", PURIFIERS)
def test_whatever_changes_the_answer_alone_does_not(build, name, tmp_path):
    other = {"ensemble": "confidence", "skip": 0.5, "copies": 2, "vote": "majority", "cache": str(tmp_path), "rows": 3}
    assert other.keys() == ANSWERING
    method = build(name, **other)
    assert method.purifier.identity == build(name).purifier.identity
    assert method.purifier.rows == 3
    assert method.purifier.cache.folder == tmp_path
    assert (method.ensemble, method.skip) == ("confidence", 0.5)
    assert (method.evaluations, method.purifier.evaluations) == (8, 4)


def test_another_predictor_guides_to_other_images(build, predictor, pixels, task):
    before = build("gda").purifier.identity
    next(predictor.parameters()).data += 0.1
    assert build("gda").purifier.identity != before
    dda = build("dda").purifier.identity
    next(predictor.parameters()).data += 0.1
    assert build("dda").purifier.identity == dda  # which does not look through it


def test_replacing_takes_the_weight_as_it_is(build):
    """A norm over a batch is part of a gradient; "replace" has none."""
    guides = [
        build("dda", form=form, weight=0.8, reference_batch_size=4, bounded=False).purifier.guide
        for form in ("estimate", "replace")
    ]
    assert [guide.terms[0][0] for guide in guides] == [0.4, 0.8]


def test_terms_of_gda(build):
    """In the order of their equation; a weight of 0 leaves one out."""
    guide = build("gda", entropy=3.0, mse=7.0).purifier.guide
    assert [weight for weight, _ in guide.terms] == [7.0, 3.0]
    assert (guide.form, guide.mixed, guide.scaled) == ("through", True, True)
    assert len(build("gda", entropy=0.0).purifier.guide.terms) == 1
    assert len(build("gda", mse=0.0).purifier.guide.terms) == 1


def test_ties_go_to_the_image_itself():
    p, q = torch.tensor([[0.7, 0.3]]), torch.tensor([[0.3, 0.7]])
    for ensemble in ("entropy", "confidence"):
        assert torch.equal(join(p, q, ensemble), p)


def test_of_maps_every_pixel_is_joined_by_itself():
    p = torch.tensor([[[[0.9, 0.4]], [[0.1, 0.6]]]])  # [1, 2, 1, 2]
    q = torch.tensor([[[[0.2, 0.1]], [[0.8, 0.9]]]])
    chosen = torch.tensor([[[[0.9, 0.1]], [[0.1, 0.9]]]])
    assert torch.equal(join(p, q, "entropy"), chosen)
    assert torch.equal(join(p, q, "confidence"), chosen)
    assert torch.allclose(join(p, q, "confidence-sum")[0, 0, 0, 0], torch.tensor((0.81 + 0.16) / 1.7))


@pytest.mark.parametrize("skip", [0.0, -0.1, 1.1])
def test_a_bar_is_a_confidence(build, skip):
    with pytest.raises(UsageError, match=r"confidence in \(0, 1\]"):
        build("diffpure", skip=skip)


def test_at_a_bar_of_one_all_images_are_purified(build, inputs):
    prediction, state = build("diffpure", skip=1.0).step(None, inputs, 0)
    assert [cost.nfe_forward for cost in prediction.costs] == [4] * len(inputs)
    assert state is None


def test_caches_and_stand_ins(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_at("") is None
    assert cache_at("~/kept").folder == tmp_path / "kept"
    assert isinstance(unused_predictor(), Predictor)
    assert unused_predictor().class_names == ()
