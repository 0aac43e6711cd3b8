"""A fixture that compares, and keeps what it finds for docs/parity.md."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from diffcern.predictors.native import NativePredictorConfig, native_predictor
from diffcern.priors.native import NativeConfig, native_prior
from diffcern.tasks import Classification
from diffcern.types import Inputs

from .page import Row, apart, write_page

ROWS: list[Row] = []
NAMES = tuple("01234")
SIDE = 8


@pytest.fixture
def parity():
    """compare(method, quantity, against, ours, expected, tolerance): fails where the two are further apart."""

    def compare(method, quantity, against, ours, expected, tolerance=1e-5):
        if isinstance(ours, dict):
            ours, expected = (torch.cat([d[name].flatten() for name in sorted(ours)]) for d in (ours, expected))
        ours, expected = torch.as_tensor(ours), torch.as_tensor(expected)
        found = apart(ours, expected)
        ROWS.append(Row(method, quantity, against, expected.numel(), found, tolerance))
        assert found <= tolerance, f"{method}, {quantity}: {found:.2e} apart"

    return compare


def pytest_sessionfinish(session: pytest.Session) -> None:
    if (path := session.config.getoption("--parity")) and not session.testsfailed:
        write_page(ROWS, Path(path))


@pytest.fixture(params=["eps", "x0", "v"])
def network(request):
    """A class-conditional prior with random weights everywhere, of each prediction kind."""
    torch.manual_seed(0)
    config = NativeConfig("dit", request.param, SIDE, 3, NAMES)
    prior = native_prior(config, width=16, depth=2, heads=2, patch=4)
    for parameter in prior.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return prior


@pytest.fixture
def classifier():
    """A small ResNet whose running statistics are not the initial ones."""
    torch.manual_seed(1)
    model = native_predictor(
        NativePredictorConfig("small-resnet", SIDE, NAMES, (0.5,) * 3, (0.25,) * 3, width=4, depth=1)
    ).train()
    model(torch.rand(64, 3, SIDE, SIDE))
    return model.eval()


@pytest.fixture
def reference(classifier):
    """A copy to do by hand what the method does."""
    return copy.deepcopy(classifier).requires_grad_(True)


@pytest.fixture
def names():
    return Classification(NAMES, NAMES)


@pytest.fixture
def three():
    images = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    return Inputs(images, ["a", "b", "c"])


def eps_of(prior, x_t, t, classes):
    """eps_hat from the raw output by the definition of its kind, x_t = alpha x0 + sigma eps; `[B, ...]`."""
    from diffcern.types import Condition

    alpha, sigma = (table[t].view(-1, 1, 1, 1) for table in (prior.alphas, prior.sigmas))
    raw = prior(x_t, t, Condition(classes=classes)).output
    if prior.kind == "eps":
        return raw
    if prior.kind == "x0":
        return (x_t - alpha * raw) / sigma
    return sigma * x_t + alpha * raw  # v = alpha eps - sigma x0


def x0_of(prior, x_t, t, classes=None):
    """x0_hat likewise; unconditional without classes."""
    from diffcern.types import Condition

    alpha, sigma = (table[t].view(-1, 1, 1, 1) for table in (prior.alphas, prior.sigmas))
    raw = prior(x_t, t, Condition(classes=classes)).output
    if prior.kind == "x0":
        return raw
    return (x_t - sigma * raw) / alpha if prior.kind == "eps" else alpha * x_t - sigma * raw
