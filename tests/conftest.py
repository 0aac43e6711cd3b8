"""What every test can use: an exact prior, a predictor with BatchNorm, images drawn from the prior; a machine without a
network and a hub cache to put repositories into. With CHECK_SHAPES=1, as in CI, the annotated shapes are checked."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # and so must what tests start, beside one another
    os.environ["OMP_NUM_THREADS"] = "1"

if os.environ.get("CHECK_SHAPES"):  # a sixth of the time
    import shape_checks  # noqa: F401, before diffcern

import huggingface_hub.constants
import pytest
import torch
from output_checks import check_output
from torch import Tensor

from diffcern.cli import main
from diffcern.predictors.native import NativePredictorConfig, native_predictor
from diffcern.priors import GaussianMixturePrior
from diffcern.tasks import Classification
from diffcern.types import Inputs

CLASSES = 4
SIDE = 8


@pytest.fixture(autouse=True)
def _threads():
    torch.set_num_threads(1)  # two test runs on two cores must not fight over barriers


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of the hub and of torch, and no network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "hub"


@pytest.fixture
def publish(cache) -> Callable[[Path, str], None]:
    """Puts a folder into the cache as if it had been downloaded from the hub."""

    def publish(folder: Path, name: str) -> None:
        repository = cache / f"models--{name.replace('/', '--')}"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text("0" * 40)
        shutil.copytree(folder, repository / "snapshots" / ("0" * 40))

    return publish


@pytest.fixture
def prior() -> GaussianMixturePrior:
    """Four classes in 3 x 8 x 8 dimensions, well apart."""
    means = 0.4 * torch.randn(CLASSES, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    return GaussianMixturePrior(means, std=0.3).requires_grad_(False)


@pytest.fixture
def predictor():
    """A small ResNet with BatchNorm, random weights, and running statistics that are not the initial ones."""
    torch.manual_seed(0)
    config = NativePredictorConfig(
        "small-resnet", SIDE, tuple("0123"), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), width=4, depth=1
    )
    model = native_predictor(config).train()
    model(torch.rand(64, 3, SIDE, SIDE))
    return model.eval()


@pytest.fixture
def task(prior) -> Classification:
    return Classification(tuple("0123"), prior.class_names)


@pytest.fixture
def targets() -> Tensor:
    return torch.arange(12) % CLASSES


@pytest.fixture
def inputs(prior, targets) -> Inputs:
    """Twelve images drawn from the prior's classes in turn."""
    noise = torch.randn(12, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    images = prior.decode(prior.means[targets] + prior.std * noise)
    return Inputs(images, [f"image-{i}" for i in range(12)])


@pytest.fixture
def cli(capsys, monkeypatch) -> Callable[..., tuple[int, str, str]]:
    """Runs a command line: exit code, what it prints, and what it says on stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()  # what came before
        monkeypatch.setattr(sys, "argv", ["diffcern", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as error:
            code = error.code or 0
        out, err = capsys.readouterr()
        check_output(list(map(str, arguments)), out)
        return code, out, err

    return run


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--parity", metavar="FILE", help="write what tests/parity finds into docs/parity.md")
    parser.addoption(
        "--screenshots", metavar="FOLDER", help="write the pictures that tests/browser takes, for docs/images"
    )


@pytest.fixture(scope="session")
def cluster():
    """A Ray cluster of two cores for whoever asks, ended with the session."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'diffcern[ray]'")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield ray
    ray.shutdown()
