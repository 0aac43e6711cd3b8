"""What is done to images without any prior."""

import pytest
import torch

from diffcern.data import load_dataset
from diffcern.data.shifts import shift
from diffcern.errors import UsageError
from diffcern.methods import build_method
from diffcern.predictors import load_predictor
from diffcern.tasks import Classification
from diffcern.types import Inputs


@pytest.fixture(scope="module")
def world():
    predictor, data = load_predictor("embedded:digits"), load_dataset("embedded:digits/validation")
    return predictor, [data[k] for k in range(0, 100, 10)]


def answers(world, name, images, ids=None, **options):
    predictor, samples = world
    task = Classification(predictor.class_names, predictor.class_names)
    method = build_method(name, predictor, None, task, options)
    return method.step(method.init(), Inputs(images, ids or [s.id for s in samples]), 0)[0]


def test_auto_contrast_undoes_a_gain_and_an_offset(world):
    predictor, samples = world
    clean = torch.stack([s.image for s in samples])
    dark = torch.stack([shift(s.image, "contrast", 4, 0, s.id) for s in samples])
    assert torch.allclose(
        answers(world, "auto-contrast", dark).output, answers(world, "auto-contrast", clean).output, atol=1e-3
    )
    flat = torch.full((1, 3, 16, 16), 0.3)
    assert torch.equal(answers(world, "auto-contrast", flat, ["flat"]).output, predictor(flat))


def test_grey_world_takes_a_cast_away(world):
    predictor, samples = world
    clean = torch.stack([s.image for s in samples])
    cast = clean * torch.tensor([1.0, 0.7, 0.4]).view(3, 1, 1)
    even = answers(world, "grey-world", cast).output
    gain = (0.7 / torch.tensor([1.0, 0.7, 0.4]) * torch.tensor([1.0, 0.7, 0.4])).view(3, 1, 1)  # of equal means
    expected = [image * gain / max(1.0, (image * gain).max().item()) for image in clean]
    assert torch.allclose(even, predictor(torch.stack(expected)), atol=1e-3)
    assert torch.allclose(answers(world, "grey-world", clean).output, predictor(clean), atol=1e-4)


def test_random_views_vote_and_are_keyed_by_the_image(world):
    _, samples = world
    images = torch.stack([s.image for s in samples])
    together = answers(world, "random-views", images, views=8)
    alone = answers(world, "random-views", images[3:4], [samples[3].id], views=8)
    assert torch.allclose(together.output[3:4], alone.output, atol=1e-5)
    assert torch.allclose(together.output.exp().sum(1), torch.ones(len(images)), atol=1e-4)
    assert torch.allclose(
        answers(world, "random-views", images, views=1).output.softmax(1), world[0](images).softmax(1), atol=1e-5
    )
    assert not torch.allclose(together.output, answers(world, "random-views", images, views=9).output)


def test_what_random_views_refuse(world):
    with pytest.raises(UsageError, match="turn is 0 to 180 degrees"):
        answers(world, "random-views", torch.zeros(1, 3, 16, 16), ["x"], turn=200.0)
