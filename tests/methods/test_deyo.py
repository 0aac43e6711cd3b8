"""DeYO: which answers hang on shape, and what shuffling patches leaves."""

import math

import pytest
import torch

from diffcern.errors import UsageError
from diffcern.methods import build_method
from diffcern.methods.deyo import shuffled, weigh
from diffcern.rng import generator
from diffcern.types import Inputs


def test_answers_that_stay_without_shape_are_left_out():
    p = torch.tensor([[0.9, 0.05, 0.05], [0.9, 0.05, 0.05], [0.4, 0.3, 0.3]])
    without = torch.tensor([[0.3, 0.4, 0.3], [0.85, 0.1, 0.05], [0.0, 0.5, 0.5]])
    found = weigh(p.log(), without.clamp(min=1e-9).log(), 0.5, 0.4, 0.3)
    e = -sum(x * math.log(x) for x in (0.9, 0.05, 0.05))
    assert found[0].item() == pytest.approx(math.exp(0.4 * math.log(3) - e) + math.exp(0.6), abs=1e-4)
    assert found[1:].tolist() == [0, 0]  # its shape was not asked for; it was not sure


def test_the_more_is_lost_the_more_an_answer_counts():
    p = torch.tensor([[0.9, 0.05, 0.05]]).expand(2, 3)
    found = weigh(p.log(), torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.45, 0.45]]).log(), 0.5, 0.4, 0.3)
    assert found[1] - found[0] == pytest.approx(math.exp(0.8) - math.exp(0.4), abs=1e-4)


def test_patches_are_the_images_in_another_order():
    image = torch.arange(3 * 8 * 12, dtype=torch.float).view(3, 8, 12) / 288
    mixed = shuffled(image, 4, generator(0, "deyo", "a"))

    def patches(x):
        return sorted(tuple(x[:, i : i + 2, j : j + 3].flatten().tolist()) for i in (0, 2, 4, 6) for j in (0, 3, 6, 9))

    assert patches(mixed) == patches(image)
    assert not torch.equal(mixed, image)
    assert torch.equal(mixed, shuffled(image, 4, generator(0, "deyo", "a")))
    assert not torch.equal(mixed, shuffled(image, 4, generator(0, "deyo", "b")))


def test_sides_that_are_no_multiple_come_back_as_they_were():
    image = torch.rand(3, 11, 9)
    mixed = shuffled(image, 4, generator(0, "deyo", "a"))
    assert mixed.shape == image.shape
    assert mixed.mean().item() == pytest.approx(image.mean().item(), abs=0.05)


def test_a_batch_of_which_none_is_chosen_moves_nothing(predictor, inputs):
    method = build_method("deyo", predictor, None, None, {"sure": 1.0, "drop": 1.0, "learning_rate": 1.0})
    state = method.init()
    assert method.step(state, inputs, 0)[1] is state


def test_what_is_refused(predictor):
    method = build_method("deyo", predictor, None, None, {"patches": 16})
    with pytest.raises(UsageError, match="16 patches a side do not fit into 8 x 8 pixels: set patches lower"):
        method.step(method.init(), Inputs(torch.rand(1, 3, 8, 8), ["a"]), 0)
    with pytest.raises(UsageError, match="option 'patches' of deyo"):
        build_method("deyo", predictor, None, None, {"patches": 1})
