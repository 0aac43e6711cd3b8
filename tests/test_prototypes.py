"""Gaussians of features: the closed form, scikit-learn's discriminants, and what they refuse."""

import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.covariance import ledoit_wolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from diffcern.errors import DiffcernError, UsageError
from diffcern.prototypes import Prototypes

NAMES = ("a", "b", "c")


@pytest.fixture
def points():
    rng = torch.Generator().manual_seed(0)
    classes = torch.arange(60) % 3
    scales = torch.tensor([0.5, 1.0, 2.0])[classes][:, None]
    return 3 * torch.eye(3, 5)[classes] + scales * torch.randn(60, 5, generator=rng), classes


def test_the_shared_covariance_is_linear_discriminant_analysis(points):
    features, classes = points
    found = Prototypes(features, classes, NAMES).log_likelihood(features)
    means = torch.stack([features[classes == k].mean(0) for k in range(3)])
    covariance, _ = ledoit_wolf((features - means[classes]).numpy(), assume_centered=True)
    for k, mean in enumerate(means):
        expected = multivariate_normal(mean.numpy(), covariance).logpdf(features.numpy())
        assert torch.allclose(found[:, k], torch.from_numpy(expected).float(), atol=1e-3)
    linear = LinearDiscriminantAnalysis(solver="lsqr", priors=[1 / 3] * 3).fit(features.numpy(), classes.numpy())
    agreed = found.argmax(1) == torch.from_numpy(linear.predict(features.numpy()))
    assert agreed.float().mean() > 0.95


def test_a_covariance_of_its_own_for_each_class(points):
    features, classes = points
    found = Prototypes(features, classes, NAMES, "own").log_likelihood(features)
    for k in range(3):
        own = features[classes == k].numpy()
        covariance, _ = ledoit_wolf(own - own.mean(0), assume_centered=True)
        expected = multivariate_normal(own.mean(0), covariance).logpdf(features.numpy())
        assert torch.allclose(found[:, k], torch.from_numpy(expected).float(), atol=1e-3)


def test_more_features_than_images_and_features_that_never_vary():
    rng = torch.Generator().manual_seed(0)
    features = torch.cat([torch.randn(6, 40, generator=rng), torch.zeros(6, 2)], 1)
    features[::2] += 5
    found = Prototypes(features, torch.tensor([0, 1] * 3), ("a", "b")).log_likelihood(features)
    assert found.isfinite().all()
    assert found.argmax(1).tolist() == [0, 1] * 3


def test_what_is_refused(points):
    features, classes = points
    with pytest.raises(UsageError, match=r"fewer of 2 classes: c, d"):
        Prototypes(features[classes < 2], classes[classes < 2], ("a", "b", "c", "d"))
    with pytest.raises(UsageError, match=r"2 images of its class or more"):
        Prototypes(features[:4], classes[:4], NAMES)
    with pytest.raises(DiffcernError, match="NaN or infinite"):
        Prototypes(features.clone().fill_(torch.nan), classes, NAMES)
    with pytest.raises(DiffcernError, match="the same for all images of a class"):
        Prototypes(torch.ones(6, 4), torch.arange(6) % 3, NAMES)
    with pytest.raises(DiffcernError, match="NaN or infinite"):
        Prototypes(features, classes, NAMES).log_likelihood(torch.full((1, 5), torch.inf))
