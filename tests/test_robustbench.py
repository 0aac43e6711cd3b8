"""Files of CIFAR-10-C from any data set (`scripts/cifar_c.py`), and RobustBench's own loader and loop on them."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms.v2.functional import to_pil_image

import diffcern
from diffcern.data import load_dataset, subset
from diffcern.data.shifts import shift
from diffcern.resizing import interpolate

SCRIPT = Path(__file__).parents[1] / "scripts" / "cifar_c.py"
if not SCRIPT.is_file():
    pytest.skip("the scripts are not here", allow_module_level=True)
COUNT, NAMES = 20, ("fog", "contrast")


def run(monkeypatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
    runpy.run_path(str(SCRIPT), run_name="__main__")


@pytest.fixture
def written(monkeypatch, tmp_path) -> Path:
    run(monkeypatch, "embedded:digits", tmp_path, "--count", COUNT, "--corruptions", *NAMES)
    return tmp_path


def test_the_files_are_those_of_cifar_10_c(written):
    """Severity s begins at row (s - 1) 10,000, and holds what a bench would show."""
    data = subset(load_dataset("embedded:digits"), COUNT, 0)
    labels = np.load(written / "CIFAR-10-C" / "labels.npy").reshape(5, 10_000)
    assert (labels[:, :COUNT] == data.targets).all()
    assert (labels[:, COUNT:] == -1).all()
    for name in NAMES:
        stack = np.load(written / "CIFAR-10-C" / f"{name}.npy", mmap_mode="r")
        assert stack.shape == (50_000, 32, 32, 3)
        assert stack.dtype == np.uint8
        for severity, row in ((1, 0), (3, 7), (5, COUNT - 1)):
            sample = data[row]
            image = interpolate(sample.image[None], (32, 32), "bilinear")[0].clamp(0, 1)
            shown = shift(image, name, severity, 0, sample.id)
            stored = torch.from_numpy(stack[(severity - 1) * 10_000 + row].copy()).permute(2, 0, 1) / 255
            assert (stored - shown).abs().max() < 0.502 / 255  # rounded to 8 bits


def test_what_cannot_be_written_is_refused(monkeypatch, tmp_path, capsys):
    (tmp_path / "plain").mkdir()
    to_pil_image(torch.rand(3, 32, 32)).save(tmp_path / "plain" / "a.png")
    with pytest.raises(SystemExit) as code:
        run(monkeypatch, f"folder:{tmp_path / 'plain'}", tmp_path)
    assert code.value.code == 1
    assert "give a data set of labelled images" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(monkeypatch, "embedded:digits", tmp_path, "--corruptions", "drizzle")
    assert "drizzle" in capsys.readouterr().err


@pytest.fixture
def robustbench(monkeypatch):
    """The package, whose release asks for a module by a name that its dependency does not have (see findings/)."""
    reason = "robustbench is not installed: see docs/extend.md"
    attack = pytest.importorskip("pyautoattack", reason=reason)
    state = pytest.importorskip("pyautoattack.state", reason=reason)
    monkeypatch.setitem(sys.modules, "autoattack", attack)
    monkeypatch.setitem(sys.modules, "autoattack.state", state)
    return pytest.importorskip("robustbench", reason=reason, exc_type=ImportError)


@pytest.mark.parametrize("method", ["source", "bn-adapt", "diffpure"])
def test_robustbench_evaluates_an_adapted_model(robustbench, written, method):
    """Its loader finds our rows, and its loop, under no_grad, has the accuracy that one call for all has."""
    from robustbench.data import load_cifar10c
    from robustbench.utils import clean_accuracy

    predictor, prior = diffcern.load_predictor("embedded:digits"), diffcern.load_prior("embedded:digits")
    model = diffcern.adapt(predictor, prior, method)
    for severity in (1, 5):
        x, y = load_cifar10c(COUNT, severity, str(written), False, ["contrast"])
        assert x.shape == (COUNT, 3, 32, 32)
        found = clean_accuracy(model, x, y, batch_size=COUNT // 2)
        batches = [model(part) for part in x.split(COUNT // 2)]
        assert found == pytest.approx((torch.cat(batches).argmax(1) == y).float().mean().item())
        assert (y == torch.tensor(subset(load_dataset("embedded:digits"), COUNT, 0).targets)).all()
