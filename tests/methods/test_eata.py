"""ETA's filters and weights on logits that are made for it, and EATA's pull."""

import math

import pytest
import torch

from diffcern.errors import UsageError
from diffcern.methods import build_method
from diffcern.methods.eata import fisher, weigh

TRAIN = {"source_images": "embedded:digits/train", "fisher_count": 2}
ALL = {"sure": 1.0, "alike": 1.0}


def logits_of(*rows):
    return torch.tensor(rows).log()


def test_sure_answers_count_by_how_sure_they_are():
    p = [[0.97, 0.01, 0.01, 0.01], [0.9, 0.04, 0.03, 0.03], [0.4, 0.3, 0.2, 0.1], [0.25] * 4]
    found = weigh(logits_of(*p), None, 0.4, 0.05)
    bound = 0.4 * math.log(4)
    for row, weight in zip(p, found.tolist(), strict=True):
        e = -sum(x * math.log(x) for x in row)
        assert weight == pytest.approx(math.exp(bound - e) if e < bound else 0.0, abs=1e-5)
    assert found[0] > found[1] > 1
    assert found[2:].tolist() == [0, 0]


def test_answers_like_the_mean_of_the_others_are_left_out():
    p = logits_of([0.97, 0.01, 0.01, 0.01], [0.01, 0.97, 0.01, 0.01])
    mean = torch.tensor([0.94, 0.02, 0.02, 0.02])
    assert (weigh(p, mean, 0.4, 0.05) > 0).tolist() == [False, True]
    assert (weigh(p, mean, 0.4, 1.0) > 0).tolist() == [True, True]
    assert (weigh(p, None, 0.4, 0.0) > 0).tolist() == [True, True]  # there is no mean before the first


def test_a_batch_of_which_none_is_chosen_moves_nothing(predictor, inputs):
    method = build_method("eta", predictor, None, None, {"sure": 0.0, "learning_rate": 1.0})
    state = method.init()
    answer, after = method.step(state, inputs, 0)
    assert after is state
    assert torch.equal(
        answer.output, build_method("bn-adapt", predictor, None, None, {}).step(None, inputs, 0)[0].output
    )


def test_the_mean_is_of_what_was_chosen(predictor, inputs):
    method = build_method("eta", predictor, None, None, {**ALL, "learning_rate": 0.0})
    first, state = method.step(method.init(), inputs[:6], 0)
    assert torch.allclose(state.mean, first.probabilities.mean(0))
    second, after = method.step(state, inputs[6:], 0)
    assert torch.allclose(after.mean, 0.9 * state.mean + 0.1 * second.probabilities.mean(0))


def test_beta_pulls_the_weights_back(predictor, inputs):
    def way(beta):
        options = {**ALL, "learning_rate": 0.05, "optimizer": "adam", "beta": beta, **TRAIN}
        method = build_method("eata", predictor, None, None, options)
        state = method.init()
        source = state.weights.parameters
        for _ in range(3):
            _, state = method.step(state, inputs, 0)
        return sum((value - source[name]).square().sum().item() for name, value in state.weights.parameters.items())

    assert way(1e6) < 0.5 * way(0.0)


def test_fisher_is_the_mean_of_squares_and_not_the_square_of_the_mean(predictor, inputs):
    one, two = (fisher(predictor, [image]) for image in inputs.images[:2])
    both = fisher(predictor, inputs.images[:2])
    assert all(torch.allclose(both[name], (one[name] + two[name]) / 2) for name in both)
    assert max(value.max() for value in both.values()) > 0


def test_what_it_loaded_is_in_its_fingerprint(predictor):
    made = [
        build_method("eata", predictor, None, None, {**TRAIN, **more}).loaded
        for more in ({}, {}, {"fisher_count": 3}, {"source_images": "embedded:digits/validation"})
    ]
    assert made[0] == made[1]
    assert len(set(made)) == 3
    assert build_method("eta", predictor, None, None, {}).loaded == ""


def test_what_is_refused(predictor):
    with pytest.raises(UsageError, match=r"set source_images to a data set .* or take eta"):
        build_method("eata", predictor, None, None, {})
    with pytest.raises(UsageError, match="unknown embedded data set 'digit'"):
        build_method("eata", predictor, None, None, {"source_images": "embedded:digit"})
    with pytest.raises(UsageError, match="option 'sure' of eta"):
        build_method("eta", predictor, None, None, {"sure": 1.5})
