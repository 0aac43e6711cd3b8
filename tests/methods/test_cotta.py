"""CoTTA: whose answers are averaged over views, and which weights are given back."""

import pytest
import torch

from diffcern.errors import UsageError
from diffcern.methods import build_method
from diffcern.methods.augmentations import augmented
from diffcern.methods.cotta import given_back
from diffcern.rng import generator
from diffcern.types import Inputs


def build(predictor, **options):
    return build_method("cotta", predictor, None, None, {"views": 2, "statistics": "source", **options})


def test_views_are_asked_about_images_that_the_source_is_unsure_of(predictor, inputs):
    sure = predictor(inputs.images).softmax(1).amax(1).sort().values
    between = sure[5:7].mean().item()
    source = predictor(inputs.images).softmax(1)
    rngs = [generator(0, "cotta", id) for id in inputs.ids]
    views = [augmented(x, 2, rng) for x, rng in zip(inputs.images, rngs, strict=True)]
    averaged = torch.stack([predictor(view).softmax(1).mean(0) for view in views])
    unsure = source.amax(1, keepdim=True) < between
    method = build(predictor, threshold=between)
    found = method.step(method.init(), inputs, 0)[0].output.softmax(1)
    assert unsure.sum() == 6
    assert torch.allclose(found, torch.where(unsure, averaged, source), atol=1e-5)
    assert not torch.allclose(averaged[unsure[:, 0]], source[unsure[:, 0]], atol=1e-4)


def test_the_teacher_follows_slowly_and_answers(predictor, inputs):
    method = build(predictor, keep=1.0, threshold=0.0, restore=0.0, learning_rate=0.1)
    first, state = method.step(method.init(), inputs, 0)
    second, _ = method.step(state, inputs, 0)
    assert torch.equal(first.output, second.output)  # it has not moved at all, and the student has
    source = method.init().teacher
    assert any(not torch.equal(value, source[name]) for name, value in state.student.parameters.items())
    method = build(predictor, keep=0.0, threshold=0.0, restore=1.0, learning_rate=0.1)
    _, state = method.step(method.init(), inputs, 0)
    assert all(torch.equal(value, source[name]) for name, value in state.student.parameters.items())
    assert any(not torch.equal(value, source[name]) for name, value in state.teacher.items())


def test_a_share_of_the_weights_is_given_back():
    weights, source = {"a": torch.ones(100, 100)}, {"a": torch.zeros(100, 100)}
    found = given_back(weights, source, 0.01, generator(0, "x"))["a"]
    assert 60 < (found == 0).sum() < 150
    assert torch.equal(given_back(weights, source, 0.0, generator(0, "x"))["a"], weights["a"])


def test_each_step_gives_others_back(predictor, inputs):
    """Also where the same images come again, as they do under the next shift."""
    method, back = build(predictor, threshold=0.0, restore=0.5, learning_rate=0.1), []
    state, source = method.init(), method.init().teacher
    for _ in range(2):
        _, state = method.step(state, inputs, 0)
        back.append(torch.cat([(w == source[name]).flatten() for name, w in state.student.parameters.items()]))
    assert 0.4 < back[0].float().mean() < 0.7
    assert not torch.equal(*back)


def test_views_keep_the_picture_and_belong_to_the_image():
    image = torch.zeros(3, 16, 24)
    image[:, 4:12, :8] = 0.8
    before = torch.get_rng_state()
    views = augmented(image, 40, generator(0, "cotta", "a"))
    assert torch.equal(torch.get_rng_state(), before)
    assert views.shape == (40, 3, 16, 24)
    assert 0 <= views.min() < views.max() <= 1
    right = views[..., 16:].mean((1, 2, 3)) > views[..., :8].mean((1, 2, 3))
    assert 8 < right.sum() < 32
    plain = augmented(image, 40, generator(0, "cotta", "a"), mirror=False)
    assert not (plain[..., 16:].mean((1, 2, 3)) > plain[..., :8].mean((1, 2, 3))).any()
    assert torch.equal(plain, augmented(image, 40, generator(0, "cotta", "a"), mirror=False))
    assert not torch.equal(plain[:1], augmented(image, 1, generator(0, "cotta", "b"), mirror=False))
    assert len(plain.flatten(1).unique(dim=0)) == 40


def test_what_is_refused(predictor):
    for options in ({"views": 0}, {"threshold": 2.0}, {"restore": -0.1}, {"statistics": "both"}):
        with pytest.raises(UsageError, match="option"):
            build_method("cotta", predictor, None, None, options)


def test_an_image_is_answered_the_same_in_any_company(predictor, inputs):
    method = build(predictor, threshold=0.3)
    together = method.step(method.init(), inputs, 0)[0].output
    alone = method.step(method.init(), Inputs(inputs.images[3:4], inputs.ids[3:4]), 0)[0].output
    assert torch.allclose(together[3:4], alone, atol=1e-4)
