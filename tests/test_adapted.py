"""What `diffcern.adapt` and the module that it makes refuse, and say."""

import warnings

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


def test_images_of_different_sizes_in_one_list(model):
    wide = torch.rand(3, 8, 20)
    both = model([IMAGES[0], wide])
    assert torch.allclose(both[:1], model(IMAGES[:1]), atol=1e-5)
    assert torch.allclose(both[1:], model(wide[None]), atol=1e-5)
    with pytest.raises(diffcern.UsageError, match=r"not \[1, 8, 20\]"):
        model([IMAGES[0], wide[0]])


def test_one_image_alone_has_no_batch_statistics(predictor):
    """The last batch of a loader: TENT's answer for it means nothing, and it says so."""
    tent, mixed = (
        diffcern.adapt(predictor, method=name, online=True, **options)
        for name, options in (("tent", {}), ("bn-adapt", {"source_count": 16.0}))
    )
    with pytest.warns(UserWarning, match="its answer means nothing"):
        tent(IMAGES[:1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tent(IMAGES)
        mixed(IMAGES[:1])
