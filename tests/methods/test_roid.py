"""ROID's losses, weights and correction on probabilities that are made for it."""

import math

import pytest
import torch

from diffcern.errors import UsageError
from diffcern.methods import build_method
from diffcern.methods.roid import corrected, likelihood_ratio, symmetric, weigh


def test_the_likelihood_ratio_has_a_gradient_until_it_is_sure():
    p = torch.tensor([[0.7, 0.2, 0.1], [0.998, 0.001, 0.001]])
    logits = p.log().requires_grad_()
    found = likelihood_ratio(logits)
    assert found[0].item() == pytest.approx(-sum(x * math.log(x / (1 - x)) for x in (0.7, 0.2, 0.1)), abs=1e-5)
    rest = -2 * 0.001 * math.log(0.001 / 0.999)
    assert found[1].item() == pytest.approx(-0.99 * math.log(99) + rest, abs=1e-4)
    (slope,) = torch.autograd.grad(found.sum(), logits)
    assert slope[0].norm() > 0.1 > 0.02 > slope[1].norm()
    entropy = -(logits.softmax(1) * logits.log_softmax(1)).sum(1)
    assert torch.autograd.grad(entropy.sum(), logits)[0][0].norm() < slope[0].norm()


def test_cross_entropy_goes_both_ways():
    one, other = torch.tensor([[0.6, 0.4]]).log(), torch.tensor([[0.2, 0.8]]).log()
    expected = -0.5 * (0.6 * math.log(0.2) + 0.4 * math.log(0.8) + 0.2 * math.log(0.6) + 0.8 * math.log(0.4))
    assert symmetric(one, other).item() == pytest.approx(expected, abs=1e-5)
    assert torch.allclose(symmetric(one, other), symmetric(other, one))


def test_usual_answers_count_for_nothing_and_sure_ones_most():
    p = torch.tensor([[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.1, 0.8, 0.1], [0.8, 0.1, 0.1]])
    mean = torch.tensor([0.8, 0.1, 0.1])  # the first and the last are as ever
    found = weigh(p.log(), mean, 1 / 3)
    assert found[[0, 3]].tolist() == [0, 0]
    assert found[1].item() == pytest.approx(math.exp(3), rel=1e-4)  # the most unusual and the surest
    assert 1 <= found[2] < found[1]


def test_an_image_alone_counts_once_and_keeps_its_answer():
    logits = torch.tensor([[0.5, 2.0, -1.0]])
    assert weigh(logits, torch.full((3,), 1 / 3), 1 / 3).tolist() == [1.0]
    assert corrected(logits).argsort().tolist() == logits.argsort().tolist()


def test_the_prior_is_that_of_the_batch_smoothed():
    """Undecided between two classes, of which the batch shows one: that one."""
    p = torch.tensor([[0.5, 0.5, 1e-6]] + [[0.98, 0.01, 0.01]] * 5)
    q = p.mean(0)
    smooth = max(1 / 6, 1 / 3) / q.max()
    expected = p * (q + smooth) / (1 + 3 * smooth)
    assert torch.allclose(corrected(p.log()).softmax(1), expected / expected.sum(1, keepdim=True), atol=1e-5)
    assert corrected(p.log())[0].argmax() == 0


def test_the_sources_weights_are_mixed_in(predictor, inputs):
    kept = build_method("roid", predictor, None, None, {"keep": 0.0, "learning_rate": 1.0})
    source = kept.init().weights.parameters
    after = kept.step(kept.init(), inputs, 0)[1].weights.parameters
    assert all(torch.equal(after[name], value) for name, value in source.items())
    moved = build_method("roid", predictor, None, None, {"keep": 1.0, "learning_rate": 1.0})
    half = build_method("roid", predictor, None, None, {"keep": 0.5, "learning_rate": 1.0})
    all_, some = (m.step(m.init(), inputs, 0)[1].weights.parameters for m in (moved, half))
    assert any(not torch.allclose(all_[name], value, atol=1e-4) for name, value in source.items())
    assert all(torch.allclose(some[name], (all_[name] + value) / 2, atol=1e-6) for name, value in source.items())


def test_what_is_refused(predictor):
    for options in ({"tau": 0.0}, {"keep": 1.1}, {"statistics": "source"}):
        with pytest.raises(UsageError, match="option"):
            build_method("roid", predictor, None, None, options)
