"""What `diffcern.adapt` and the module that it makes refuse, and say."""

import numpy as np
import pytest
import torch
from torch import nn

import diffcern

IMAGES = torch.rand(2, 3, 8, 8)


@pytest.fixture
def model(predictor, prior):
    return diffcern.adapt(predictor, prior, draws=2, steps=1)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGES * 255, r"pixels are in \[0, 1\], not in"),
        (IMAGES.mul(255).byte(), r"floating point.*uint8"),
        (IMAGES[0], r"\[B, 3, H, W\].*not \[3, 8, 8\]"),
        (IMAGES[:0], r"B of at least 1"),
        (IMAGES.numpy(), "not a ndarray"),
        (IMAGES.masked_fill(IMAGES > 0.5, np.nan), r"pixels are in \[0, 1\], not in \[nan"),
    ],
)
def test_what_is_no_batch_of_images(model, images, message):
    with pytest.raises(diffcern.UsageError, match=message):
        model(images)


def test_one_id_for_each_image(model):
    with pytest.raises(diffcern.UsageError, match="2 images, 1 ids"):
        model(IMAGES, ids=["a"])


def test_double_precision_is_taken(model):
    assert torch.equal(model(IMAGES.double()), model(IMAGES))


def test_a_bare_network_and_swapped_models(predictor, prior):
    with pytest.raises(diffcern.UsageError, match="wrap a network of yours"):
        diffcern.adapt(nn.Linear(2, 2), prior)
    with pytest.raises(diffcern.UsageError, match=r"not GaussianMixturePrior and Predictor"):
        diffcern.adapt(prior, predictor)
