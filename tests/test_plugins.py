"""Methods, priors, predictors and data sets of other packages: docs/extend.md, run as it stands."""

import json
import re
import shlex
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

import diffcern
from diffcern import plugins
from diffcern.errors import UsageError
from diffcern.fingerprints import fingerprint
from diffcern.methods import method_class

PAGE = (Path(__file__).parents[1] / "docs" / "extend.md").read_text()
CODE, COMMANDS, ANNOUNCED = (re.search(rf"```{kind}\n(.*?)```", PAGE, re.S)[1] for kind in ("python", "bash", "toml"))

ODD = """
NUMBER = 3
def fails():
    raise OSError("no disk")
def empty():
    return {}
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(CODE)
    (tmp_path / "broken.py").write_text("1 / 0")
    (tmp_path / "odd.py").write_text(
        "NUMBER = 3\ndef fails():\n    raise OSError('no disk')\ndef empty():\n    return {}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("mine", "broken", "odd"):
        sys.modules.pop(name, None)


def test_the_commands_of_the_page(mine, cli):
    for command in COMMANDS.strip().splitlines():
        code, _, err = cli(*shlex.split(command)[1:])
        assert code == 0, err
    flipped, classes = (json.loads((mine / name).read_text()) for name in ("flipped.json", "classes.json"))
    assert len(flipped) == len(classes) == 20
    assert sum(row["before"] == row["after"] for row in flipped) > 10
    digits = diffcern.load_dataset("embedded:digits")
    truth = dict(zip(digits.ids, digits.targets, strict=True))
    assert sum(row["label"] == str(truth[row["id"]]) for row in classes) > 10, "a Gaussian knows most digits"


def test_in_python_and_by_announced_names(mine, monkeypatch):
    points = []
    for line in ANNOUNCED.strip().splitlines():
        if line.startswith("["):
            group = line.split('"')[1]
        else:
            name, value = line.split(" = ")
            points.append(EntryPoint(name, value.strip('"'), group))
    monkeypatch.setattr(plugins, "entry_points", lambda group: [p for p in points if p.group == group])
    assert method_class("flipped") is method_class("mine:Flipped")
    prior, same = diffcern.load_prior("means"), diffcern.load_prior("mine:prior")
    assert fingerprint(prior) == fingerprint(same)
    assert len(diffcern.load_dataset("twenty")) == 20
    model = diffcern.adapt(diffcern.load_predictor("mine"), prior, method="diffusion-classifier", draws=4)
    assert model(torch.rand(2, 3, 16, 16)).shape == (2, 10)
    with pytest.raises(UsageError, match=r"unknown method 'flipt'.*flipped"):
        method_class("flipt")
    with pytest.raises(UsageError, match=r"unknown prior 'mean'.*means"):
        diffcern.load_prior("mean")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere:thing", r"unknown prior 'nowhere:thing'.*my_module:NAME \(importable: PYTHONPATH\)"),
        ("broken:thing", "cannot import 'broken:thing', one of priors: division by zero"),
        ("odd:nothing", "cannot import 'odd:nothing', one of priors: module 'odd' has no attribute 'nothing'"),
        ("odd:NUMBER", "odd:NUMBER cannot be called"),
        ("odd:fails", "odd:fails could not be made: no disk"),
        ("odd:empty", "odd:empty makes a dict, not a Prior"),
        ("mine:Flipped", "mine:Flipped could not be made: .*missing 1 required positional argument"),
    ],
)
def test_what_is_no_prior(mine, name, message):
    with pytest.raises(UsageError, match=message):
        diffcern.load_prior(name)


def test_what_is_no_data_set_and_no_predictor(mine):
    with pytest.raises(UsageError, match="odd:empty is no data set: it lacks name, ids, targets"):
        diffcern.load_dataset("odd:empty")
    with pytest.raises(UsageError, match="odd:empty makes a dict, not a Predictor"):
        diffcern.load_predictor("odd:empty")
    with pytest.raises(UsageError, match="mine:prior is no method"):
        method_class("mine:prior")
