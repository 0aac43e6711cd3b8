"""`diffcern doctor` on a machine that is well, and on one that computes something else."""

import json
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from diffcern import health, optional, selftest
from diffcern.errors import UsageError
from diffcern.selftest import Digits, self_test

CPU = torch.device("cpu")


def test_a_machine_that_is_well(cli):
    code, out, err = cli("doctor", "--device", "cpu", "--json")
    found = json.loads(out)
    assert (code, found["well"], err) == (0, True, "")
    assert [check["passed"] for check in found["checks"]] == [True] * 3
    assert {device["name"] for device in found["devices"]} >= {"cpu"}
    assert all(place["free_gib"] > 0 for place in found["places"])


def test_one_that_computes_something_else_is_told_so(cli, monkeypatch):
    load = selftest.load_prior

    def damaged(*arguments, **options):
        prior = load(*arguments, **options)
        with torch.no_grad():
            for parameter in prior.denoiser.parameters():
                parameter.mul_(0.7)
        return prior

    monkeypatch.setattr(selftest, "load_prior", damaged)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = cli("doctor", "--device", "cpu")
    assert code == 1
    assert out.count("no: ") == 2  # answers are others, and noise stays
    assert "report what" in err
    assert max(map(len, out.splitlines())) <= 80
    assert "\x1b[3" not in out


def test_what_cannot_be_loaded_is_a_failed_check(monkeypatch):
    monkeypatch.setattr(selftest, "load_dataset", lambda name: (_ for _ in ()).throw(OSError("no such file: digits")))
    (check,) = self_test(CPU)
    assert not check.passed
    assert check.found == "no such file: digits"


def test_what_to_do_about_a_failure_is_said_quietly_too(monkeypatch, cli):
    monkeypatch.setattr(selftest, "load_dataset", lambda name: (_ for _ in ()).throw(OSError("no such file: digits")))
    code, _, err = cli("doctor", "--device", "cpu", "--quiet")
    assert code == 1
    assert "install diffcern anew" in err


def test_a_question_that_fails_leaves_the_others(monkeypatch):
    class Few(Digits):
        def __init__(self, device):
            self.ids = []

    monkeypatch.setattr(selftest, "Digits", Few)
    assert [check.passed for check in self_test(CPU)] == [False] * 3


def test_old_and_missing_libraries_and_extras_are_told(monkeypatch):
    wanted = ["torch>=99", "no-such-library>=1", "rich>=1", 'no-such-library>=1; extra == "ray"']
    monkeypatch.setattr(health, "_requirements", lambda: wanted)
    found = health.examine([])
    assert {each.name: each.fits for each in found.libraries} == {
        "torch": False,
        "no-such-library": False,
        "rich": True,
    }
    (extra,) = found.extras
    assert extra.missing == ["no-such-library"]
    assert extra.install == "python -m pip install 'diffcern[ray]'"


def test_what_an_extra_brings_is_told_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    absent = optional.optional("cv2")
    with pytest.raises(UsageError, match=r"pip install 'diffcern\[corruptions\]'"):
        absent.GaussianBlur(1)
    assert not hasattr(absent, "__path__")


def test_every_extra_is_one_and_contributors_have_all():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for extra in {*optional.EXTRAS.values(), "heif", "lora", "ray"}:  # what tests need; the site's is its own
        assert set(extras[extra]) <= set(extras["dev"])
