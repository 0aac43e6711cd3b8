"""Why a prior takes an image for what it does: the same numbers as Diffusion Classifier's, split by level and pixel."""

import re

import pytest
import torch

import diffcern
from diffcern import jobs
from diffcern.data import encode_png, load_dataset
from diffcern.data.shifts import shift
from diffcern.draws import Draws
from diffcern.errors import DiffcernError, UsageError
from diffcern.explaining import Watched
from diffcern.likelihood import score
from diffcern.priors import load_prior
from diffcern.report.explained import overlay

PRIOR = ("--prior", "embedded:digits")


@pytest.fixture(scope="module")
def world():
    prior, data = load_prior("embedded:digits"), load_dataset("embedded:digits/validation")
    image = shift(data[3].image, "noise", 3, 0, data[3].id)
    return prior, prior.latents(image[None]), data[3]


def test_it_is_the_classifier_s_margin_by_level_and_by_pixel(world):
    prior, latents, sample = world
    hypotheses = prior.hypotheses()[[sample.target, (sample.target + 1) % 10, (sample.target + 5) % 10]]
    watched = Watched(prior, latents, hypotheses, sample.id, draws=24)
    assert [*watched] == list(range(1, 25))
    found = watched.now
    asked = score(prior, latents, hypotheses, Draws(watched.draws.timesteps, watched.draws.noise), weighting="x0")
    assert torch.allclose(found.errors, asked.errors[0], atol=1e-5)
    assert found.order[0] == 0
    assert found.margin == pytest.approx(float(asked.margin()[0]), rel=1e-4)
    assert found.standard_error == pytest.approx(float(asked.margin()[1]), rel=1e-4)
    assert float(found.gaps.mean()) == pytest.approx(found.margin, rel=1e-3)
    whole = sum(band.gap * band.draws for band in found.bands if band.gap is not None)
    assert whole / 24 == pytest.approx(found.margin, rel=1e-4)
    assert all(band.ends[0] < band.gap < band.ends[1] for band in found.bands if band.ends)
    assert watched.evaluations == 72


def test_what_is_seen_under_each_is_what_it_was_told(world):
    prior, latents, sample = world
    told = prior.hypotheses()[[0, 1]]
    found = Watched(prior, latents, told, sample.id, draws=24).finish()
    assert found.seen.shape == (2, 3, 16, 16)
    hole = found.seen[:, 0, 6:10, 6:10].mean((1, 2))  # a nought is empty there, a one is not
    assert hole[0] < hole[1]


def test_phrasings_of_one_label_are_no_rivals(world):
    prior, latents, sample = world
    found = Watched(prior, latents, prior.hypotheses()[[3, 3, 8]], sample.id, owners=[3, 3, 8], draws=8).finish()
    assert len(found.order) == 2
    assert {found.order[0], found.order[1]} in ({0, 2}, {1, 2})


def test_in_words(world):
    prior, latents, sample = world
    found = Watched(prior, latents, prior.hypotheses()[[sample.target, (sample.target + 1) % 10]], sample.id).finish()
    words = " ".join(found.in_words(["this", "that"]))
    assert re.search(r"Told 'this', the prior explains the noisy image better than told 'that'.*N = 48 draws", words)
    same = Watched(prior, latents, prior.hypotheses()[[3, 3]], sample.id, draws=8).finish()
    assert "less than two standard errors" in " ".join(same.in_words(["3", "3 again"]))


def test_blue_speaks_for_the_first():
    gaps = torch.tensor([[1.0, -1.0], [0.0, 0.0]])
    tinted = overlay(torch.full((3, 2, 2), 0.5), gaps)
    assert tinted[2, 0, 0] > tinted[0, 0, 0]
    assert tinted[0, 0, 1] > tinted[2, 0, 1]
    assert torch.allclose(tinted[:, 1], torch.full((3, 2), 0.5))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a <b>.png").write_bytes(encode_png(load_dataset("embedded:digits")[0].image))
    (tmp_path / "images" / "torn.png").write_bytes(b"no image")
    return tmp_path


def test_the_command(cli, folder):
    asked = ("explain", "images", *PRIOR, "--labels", "3,8,5", "--draws", "8", "--out", "why.html")
    code, out, said = cli(*asked)
    assert code == 0, said
    assert "a <b>.png: " in out
    assert "skipped torn.png" in said
    page = (folder / "why.html").read_text()
    assert "a &lt;b&gt;.png" in page
    assert page.count("<img") == 5  # the image, what is seen under three labels, where they differ
    assert "http" not in page.replace("http-equiv", "")
    assert cli(*asked)[0] == 1
    assert cli(*asked, "--json", "--overwrite", "--strict")[0] == 1


def test_captions_as_labels(folder):
    captions = ("a red sphere behind a white cone", "a white sphere behind a red cone")
    job = jobs.Explain(
        images="embedded:scenes", prior="embedded:scenes-text", labels=captions, templates=("{}",), draws=4, count=1
    )
    told = job.carry_out(None).told[0]
    assert sorted(told.row["answers"]) == sorted(captions)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"labels": ("3",)}, "two or more"),
        ({"out": "why.txt"}, r"FILE\.html"),
        ({"top": 1}, "greater than or equal to 2"),
    ],
)
def test_what_is_refused(folder, given, message):
    with pytest.raises((UsageError, DiffcernError), match=message):
        diffcern.explain("images", **{"prior": "embedded:digits", **given})
