"""Tiny saved models on the embedded digits: real files, real loading, fast."""

from __future__ import annotations

import itertools
import pickle

import pytest
import torch

from diffcern.predictors.native import NativePredictorConfig, native_predictor, save_predictor
from diffcern.priors.native import NativeConfig, native_prior
from diffcern.run.evaluate import evaluate
from diffcern.run.spec import parse_spec

DIGITS = tuple("0123456789")


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """{"predictor": folder, "prior": folder} with random weights."""
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    config = NativePredictorConfig("small-resnet", 16, DIGITS, (0.3,) * 3, (0.3,) * 3, width=4, depth=1)
    save_predictor(native_predictor(config), config, root / "predictor")
    prior = native_prior(NativeConfig("dit", "x0", 16, 1, DIGITS), width=16, depth=1, heads=2, patch=8)
    for parameter in prior.parameters():
        parameter.data.normal_(std=0.1)
    prior.save_pretrained(root / "prior")
    return {"predictor": str(root / "predictor"), "prior": str(root / "prior")}


def tiny(models):
    """A specification as a TOML table: every protocol, 45 images, two cells."""
    tta = {"steps": 2, "draws": 4, "optimizer": "sgd", "learning_rate": 0.1}
    race = {"draws": 6, "stop": "race", "strategy": "van-der-corput"}
    return {
        "name": "tiny",
        "data": {"dataset": "embedded:digits/validation", "count": 45},
        "models": dict(models),
        "shifts": {"names": ["clean", "noise"], "severities": [3]},
        "entries": {
            "source": {"method": "source", "batch_size": 20},
            "tent": {"method": "tent", "protocol": "online", "batch_size": 10},
            "diffusion-tta": {"method": "diffusion-tta", "options": tta},
            "diffusion-classifier": {"method": "diffusion-classifier", "options": race},
        },
    }


@pytest.fixture
def table(models):
    return tiny(models)


@pytest.fixture
def spec(table):
    return parse_spec(table)


@pytest.fixture
def short(table):
    """Two entries on one shift: three units each."""
    entries = {name: table["entries"][name] for name in ("source", "diffusion-tta")}
    return parse_spec({**table, "entries": entries, "shifts": {"names": ["noise"], "severities": [3]}})


@pytest.fixture
def short_run(short, tmp_path):
    """An uninterrupted run of `short`."""
    assert evaluate(short, tmp_path / "whole", device=torch.device("cpu")) == (True, {})
    return tmp_path / "whole"


def files(folder, *kinds):
    """By name, with the bytes."""
    found = itertools.chain(*(folder.rglob(kind) for kind in kinds))
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.fixture(scope="session")
def once(models, tmp_path_factory):
    """An uninterrupted run of `table`, made once: copy it before anything is changed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("once") / "whole"
    assert evaluate(parse_spec(tiny(models)), folder, device=torch.device("cpu")) == (True, {})
    torch.set_num_threads(threads)
    return folder


class Backwards:
    """An executor of another kind: whatever does the units, in whatever order, the records are the same."""

    def map(self, make, pieces, finished, lost=None):
        work = pickle.loads(pickle.dumps(make))()
        for piece in reversed(pieces):
            finished(*pickle.loads(pickle.dumps((piece, work(piece)))))
