"""The order of a stream, and when it is said that it goes by classes."""

from dataclasses import dataclass

import pytest
import torch

from diffcern.data import UnreadableImage
from diffcern.rng import generator
from diffcern.run import order as module
from diffcern.run.order import WARNING, ClassOrder, shuffled, warned


@dataclass
class Asked:
    """As far as the order goes: what the predictor says before it is adapted."""

    before: torch.Tensor


@pytest.fixture
def stream(monkeypatch):
    monkeypatch.setattr(module, "Answer", Asked)
    return lambda classes: [Asked(torch.nn.functional.one_hot(torch.tensor(k), 10).float()) for k in classes]


def test_a_shuffle_is_the_seeds():
    images = [f"image {k}" for k in range(12)]
    for seed in (0, 1):
        expected = torch.randperm(12, generator=generator(seed, "stream")).tolist()
        made = shuffled(images, seed)
        assert [made[k] for k in range(12)] == [images[k] for k in expected]


def test_it_is_said_once_and_the_answers_come_as_they_are(stream):
    """With those that cannot be read among them, which count for nothing."""
    answers, said = stream([0] * 30 + [1] * 60), []
    broken = UnreadableImage("x.png", "the file is empty")
    answers.insert(3, broken)
    assert list(warned(iter(answers), said.append)) == answers
    assert said == [WARNING]
    assert list(warned(iter(stream([k % 7 for k in range(90)])), said.append))
    assert said == [WARNING]


def noticed(classes):
    """Whether these answers are said to go by classes, when they come at once."""
    watch = ClassOrder()
    watch.add(classes)
    return watch.ordered


def test_nothing_is_said_of_too_few():
    assert not noticed([0] * 10 + [1] * 9)
    assert noticed([0] * 10 + [1] * 10)


def test_it_looks_again_at_half_as_many_more():
    """At 20 answers it is not clear, from the 29th on it would be, and at 30 it is said."""
    start = [3, 3, 0, 2, 3, 3, 2, 3, 2, 1, 1, 2, 0, 0, 0, 0, 1, 1, 1, 1]
    assert noticed(start + [2] * 9)
    watch = ClassOrder()
    for answers, said in ((start, False), ([2] * 9, False), ([2], True)):
        watch.add(answers)
        assert watch.ordered == said


def test_one_class_alone_is_no_order():
    """Nothing changes in any order."""
    assert not noticed([3] * 40)
