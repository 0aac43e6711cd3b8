"""What methods show of their way: what they would answer, the loss, what they make of the image; and never another
answer because somebody looks on."""

import pytest
import torch

from diffcern.methods import build_method
from diffcern.watching import looking_on

OPTIONS = {
    "diffusion-tta": {"steps": 3, "draws": 4, "optimizer": "sgd", "learning_rate": 0.5},
    "diffusion-classifier": {"draws": 16, "strategy": "van-der-corput", "stop": "race", "z": 8.0},
    "dda": {"start": 20, "steps": 5, "factor": 2, "ensemble": "none"},
    "canonical": {"budget": 120, "denoise": True},
}


def shown(method, inputs):
    found = []
    with looking_on(found.append):
        answer, _ = method.step(method.init(), inputs, 0)
    return found, answer


@pytest.fixture
def method(request, predictor, prior, task):
    prior.pixels = True
    return build_method(request.param, predictor, prior, task, OPTIONS[request.param])


@pytest.mark.parametrize("method", OPTIONS, indirect=True)
def test_whoever_looks_on_changes_no_answer(method, inputs):
    found, answer = shown(method, inputs)
    alone, _ = method.step(method.init(), inputs, 0)
    assert torch.equal(answer.output, alone.output)
    assert found
    for interim in found:
        assert interim.output is None or interim.output.shape == answer.output[0].shape
        assert interim.image is None or interim.image.shape[0] == 3


@pytest.mark.parametrize("method", ["diffusion-tta"], indirect=True)
def test_feedback_shows_each_step_with_its_loss(method, inputs, predictor):
    found, answer = shown(method, inputs)
    assert [interim.loss for interim in found] == answer.trace[0]
    assert len(found) == 3
    torch.testing.assert_close(found[0].output, predictor(inputs.images[:1])[0])
    assert not torch.equal(found[-1].output, found[0].output)
    assert not any(interim.output.requires_grad for interim in found)


def test_classes_that_are_left_out_are_not_shown(predictor, prior, task, inputs):
    method = build_method("diffusion-tta", predictor, prior, task, {**OPTIONS["diffusion-tta"], "top_k": 2})
    found, answer = shown(method, inputs[:1])
    assert all(torch.equal(interim.output.isinf(), answer.output[0].isinf()) for interim in found)


@pytest.mark.parametrize("method", ["diffusion-classifier"], indirect=True)
def test_a_race_ends_with_the_answer_that_was_shown_last(method, inputs):
    found, answer = shown(method, inputs[:1])
    assert len(found) > 1
    torch.testing.assert_close(found[-1].output, answer.output[0])


@pytest.mark.parametrize("method", ["dda"], indirect=True)
def test_purification_shows_what_the_prior_sees_and_then_what_is_answered(method, inputs, predictor):
    found, answer = shown(method, inputs[:1])
    assert len(found) == 5 + 1
    sure = predictor(found[-1].image[None]).softmax(1)
    torch.testing.assert_close(sure, answer.output.softmax(1))
