"""A Gaussian for each class in the features of a frozen encoder, fitted to images that a prior made (GDC: arXiv
2412.12594).

    z = encoder(x),        log p(z | k) = log N(z; mu_k, S_k),        S_k = S where the covariance is shared

Covariances are shrunk (Ledoit & Wolf 2004, scikit-learn's): features are often more than the images of a class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float32, Float64, Int
from torch import Tensor

from diffcern.errors import DiffcernError, UsageError

Covariance = Literal["shared", "own"]
FEWEST = 2  # images of a class, of which a covariance can be taken


class Prototypes:
    """features: of the images that Gaussians are fitted to; classes: of each image, 0 to len(names) - 1.

    Raises UsageError for a class with fewer than two images, naming it, DiffcernError for features that are NaN,
    infinite, or the same of all images.
    """

    def __init__(
        self,
        features: Float32[Tensor, "images features"],
        classes: Int[Tensor, " images"],
        names: Sequence[str],
        covariance: Covariance = "shared",
    ) -> None:
        counts = torch.bincount(classes, minlength=len(names))
        if few := [name for name, count in zip(names, counts.tolist(), strict=True) if count < FEWEST]:
            raise UsageError(
                f"a prototype is of {FEWEST} images of its class or more, and there are fewer of {len(few)} classes: "
                f"{', '.join(few[:5])}"
            )
        check_features(features)
        points, device = features.double().cpu(), features.device
        means = torch.stack([points[classes.cpu() == k].mean(0) for k in range(len(names))])
        residuals = points - means[classes.cpu()]
        if not residuals.any():
            raise DiffcernError("the encoder's features are the same for all images of a class: give another encoder")
        groups = [residuals] if covariance == "shared" else [residuals[classes.cpu() == k] for k in range(len(names))]
        self.whitening = [_whitening(group).to(device) for group in groups]
        self.means = means.to(device)

    def log_likelihood(self, features: Float32[Tensor, "batch features"]) -> Float32[Tensor, "batch classes"]:
        """log p(z | k). Raises DiffcernError for features that are NaN or infinite."""
        check_features(features)
        z = features.double()
        if len(self.whitening) == 1:  # one map to a space where distances are Euclid's
            (white,) = self.whitening
            return (_log_norm(white) - torch.cdist(z @ white, self.means @ white).square() / 2).float()
        columns = [
            _log_norm(white) - ((z - mean) @ white).square().sum(1) / 2
            for mean, white in zip(self.means, self.whitening, strict=True)
        ]
        return torch.stack(columns, 1).float()


def check_features(features: Float32[Tensor, "images features"]) -> None:
    """Raises DiffcernError for features that are NaN or infinite."""
    if not torch.isfinite(features).all():
        raise DiffcernError("the encoder's features are NaN or infinite: check the images and its weights")


def _whitening(residuals: Float64[Tensor, "images features"]) -> Float64[Tensor, "features features"]:
    """W with W W^T = S^-1. A share of the mean variance keeps directions in which nothing varies from being certain."""
    from sklearn.covariance import LedoitWolf  # slow to import, and only needed here

    covariance = torch.from_numpy(LedoitWolf(assume_centered=True).fit(residuals.numpy()).covariance_)
    floor = 1e-6 * covariance.diagonal().mean().clamp(min=1e-300)
    inverse = torch.linalg.inv(covariance + floor * torch.eye(len(covariance), dtype=covariance.dtype))
    return torch.linalg.cholesky((inverse + inverse.T) / 2)


def _log_norm(white: Float64[Tensor, "features features"]) -> float:
    """log density of a normal distribution at its mean."""
    return float(white.diagonal().log().sum()) - len(white) / 2 * math.log(2 * math.pi)
