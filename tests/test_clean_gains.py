"""Margins of canonical views: what clean images gain, fitted, kept beside the prior, and gone by."""

import json

import pytest
import torch
from typer.testing import CliRunner

from diffcern import clean_gains
from diffcern.canonical import Search, canonical_view
from diffcern.cli import app
from diffcern.data import load_dataset
from diffcern.data.shifts import shift
from diffcern.errors import DiffcernError, UsageError
from diffcern.jobs import make
from diffcern.jobs.calibrate_views import CalibrateViews
from diffcern.methods import build_method
from diffcern.predictors import load_predictor
from diffcern.priors import load_prior
from diffcern.priors.clean import read_clean_gains, write_clean_gains
from diffcern.tasks import Classification
from diffcern.transformations import IDENTITY

RISING = torch.linspace(0, 100, 101)


def test_a_margin_is_what_most_clean_images_stay_within():
    assert clean_gains.margin({}, "light") == clean_gains.LEAST
    assert clean_gains.margin({"turn": RISING}, "light") == clean_gains.LEAST
    assert clean_gains.margin({"light": RISING}, "light") == 90
    assert clean_gains.margin({"light": 0 * RISING}, "light") == clean_gains.LEAST
    found = clean_gains.percentiles([{"light": float(k)} for k in range(101)])
    assert torch.allclose(found["light"], RISING)
    with pytest.raises(DiffcernError, match="20 clean images or more, not 19"):
        clean_gains.percentiles([{"light": 0.0}] * 19)


def test_a_view_must_gain_more_than_clean_images_do():
    prior, sample = load_prior("embedded:digits"), load_dataset("embedded:digits/validation")[0]
    grey = shift(sample.image, "contrast", 4, 0, sample.id)[None]
    search = Search(families=("light",))
    found = canonical_view(prior, grey, sample.id, search)
    assert found.transformation != IDENTITY
    prior.clean_gains = {"light": RISING + 1e5}
    assert canonical_view(prior, grey, sample.id, search).transformation == IDENTITY
    given = Search(families=("light",), margin=3.0)
    assert canonical_view(prior, grey, sample.id, given).transformation == found.transformation


def test_what_was_gone_by_is_told_apart(tmp_path):
    """Runs and temperatures hold for the margins that they were made with."""
    predictor, prior = load_predictor("embedded:digits"), load_prior("embedded:digits")
    task = Classification(predictor.class_names, prior.class_names)

    def loaded(options):
        return build_method("canonical", predictor, prior, task, options).loaded

    shipped = loaded({})
    assert shipped
    assert loaded({"margin": 3.0}) == ""
    prior.clean_gains = {"light": RISING}
    assert loaded({}) not in ("", shipped)
    prior.clean_gains = {}
    assert loaded({}) == ""
    write_clean_gains({"light": RISING}, tmp_path)
    assert loaded({"gains": str(tmp_path)}) not in ("", shipped)
    with pytest.raises(UsageError, match=r"holds no clean_gains\.json"):
        loaded({"gains": str(tmp_path / "none")})


def test_families_are_kept_beside_each_other(tmp_path):
    write_clean_gains({"light": RISING}, tmp_path)
    write_clean_gains({"turn": 2 * RISING}, tmp_path)
    kept = read_clean_gains(tmp_path)
    assert {name: values[-1].item() for name, values in kept.items()} == {"light": 100, "turn": 200}
    for content in ("[]", '{"light": [1, 2]}', json.dumps({"light": RISING.flip(0).tolist()}), '{"light": 3}', "{"):
        (tmp_path / "clean_gains.json").write_text(content)
        with pytest.raises(DiffcernError, match=r"clean_gains\.json"):
            read_clean_gains(tmp_path)


def job(**fields):
    named = {"images": "embedded:digits/validation", "prior": "embedded:digits", "predictor": "embedded:digits"}
    return make(CalibrateViews, {**named, **fields})


def test_the_command_fits_and_keeps(tmp_path):
    models = ["--prior", "embedded:digits", "--predictor", "embedded:digits", "--count", "20"]
    command = ["calibrate", "views", "embedded:digits/validation", *models, "--keep", str(tmp_path)]
    result = CliRunner().invoke(app, [*command, "--set", "views=light", "--out", str(tmp_path / "rows.csv")])
    assert result.exit_code == 0, result.output
    assert "light: a view is answered on from" in result.output
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 21
    kept = read_clean_gains(tmp_path)["light"]
    assert kept.diff().ge(0).all()
    again = CliRunner().invoke(app, [*command, "--set", "views=light", "--json"])
    score = json.loads(again.stdout)[0]
    assert score["images"] == 20
    assert score["margin"] == pytest.approx(clean_gains.margin({"light": kept}, "light"), abs=0.1)


def test_what_cannot_be_fitted(tmp_path):
    for fields, message in (
        ({"options": {"margin": 5.0}}, "leave --calibration and --set margin out"),
        ({}, "give --keep FOLDER"),
        ({"keep": str(tmp_path), "count": 5, "options": {"views": "light"}}, "20 clean images or more, not 5"),
        ({"keep": str(tmp_path), "options": {"views": "warp"}}, "not warp"),
    ):
        with pytest.raises(DiffcernError, match=message):
            job(**fields).carry_out(None)
    with pytest.raises(UsageError, match="skip at least 0 and fewer"):
        job(keep=str(tmp_path), skip=200).carry_out(None)
