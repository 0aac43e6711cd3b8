"""Temperatures: fitted, kept, found again; and what they are refused on."""

import json

import numpy as np
import pytest

from diffcern import calibration
from diffcern.data import load_dataset
from diffcern.errors import DiffcernError, UsageError
from diffcern.jobs.base import make
from diffcern.jobs.calibrate import Calibrate
from diffcern.jobs.classify import Classify


def answers(temperature, count=4000, classes=5, seed=0, bias=0.0):
    """Logits whose honest probabilities are softmax(l / temperature + b), and classes drawn from these."""
    rng = np.random.default_rng(seed)
    logits = 3 * rng.normal(size=(count, classes))
    shift = bias * np.arange(classes)
    p = calibration.calibrated(logits, 1.0, shift)
    targets = np.array([rng.choice(classes, p=row) for row in p])
    return temperature * logits, targets


@pytest.mark.parametrize("temperature", [0.2, 1.0, 40.0])
def test_the_temperature_that_answers_were_drawn_with_is_found(temperature):
    logits, targets = answers(temperature)
    found, bias = calibration.fit(logits, targets)
    assert found == pytest.approx(temperature, rel=0.1)
    assert bias == ()
    honest = calibration.calibration_error(calibration.calibrated(logits, found), targets)
    assert honest < 0.02
    if temperature != 1:
        assert honest < calibration.calibration_error(calibration.calibrated(logits, 1.0), targets) / 2
    assert calibration.calibration_error(
        calibration.held_out(logits, targets, [str(k) for k in range(len(targets))]), targets
    ) == pytest.approx(honest, abs=0.01)


def test_numbers_for_classes_are_found():
    logits, targets = answers(2.0, bias=0.5)
    temperature, bias = calibration.fit(logits, targets, per_class=True)
    assert temperature == pytest.approx(2.0, rel=0.15)
    assert np.diff(bias) == pytest.approx(0.5, abs=0.15)
    assert sum(bias) == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("count", [20, 24, 31])
def test_few_images_are_enough_in_folds_too(count):
    """Also where all that are wrong are in one fold."""
    logits, targets = answers(1.0, count=count)
    targets = logits.argmax(1)
    targets[0] = (targets[0] + 1) % 5
    held = calibration.held_out(logits, targets, [str(k) for k in range(count)])
    assert np.allclose(held.sum(1), 1)


def test_what_changes_an_answer_changes_what_a_temperature_is_for():
    """Of Diffusion-TTA the temperature softens the condition; a stream, prompts and a shortlist's predictor matter."""
    prints = {"prior": "a", "predictor": "b"}

    def about(method="diffusion-tta", options=None, **more):
        return calibration.described(method, options or {}, ("x", "y"), prints, **more)

    assert about() == about(options={"rows": 7, "temperature": 1.0})
    assert about() != about(options={"temperature": 2.0})
    assert about() != about(stream=("online", 1))
    assert about("tent", stream=("online", 50)) != about("tent", stream=("online", 1))
    assert about() != about(templates=["a drawing of a {}."])
    assert about("diffusion-classifier")["fingerprints"] == {"prior": "a"}
    assert about("diffusion-classifier", {"shortlist": "predictor"})["fingerprints"] == prints
    assert about("sda", {"aligned": "here"}, loaded="1") != about("sda", {"aligned": "here"}, loaded="2")


def test_folders_of_the_method_on_a_view_count_too():
    assert calibration.names_folders({"generated": "images"})
    assert calibration.names_folders({"then": "diffusion-classifier", "then_options": {"generated": "images"}})
    assert not calibration.names_folders({"generated": "", "gains": "", "then_options": None})


def test_shifts_of_one_image_are_in_one_fold():
    logits, targets = answers(3.0, count=40)
    twice, both = np.concatenate([logits, logits]), np.concatenate([targets, targets])
    names = [str(k) for k in range(40)] * 2
    found = calibration.held_out(twice, both, names)
    assert np.allclose(found[:40], found[40:])


def test_the_risk_of_the_sure_is_lower():
    coverage, risk = calibration.risk_coverage(np.array([0.9, 0.5, 0.7]), np.array([1.0, 0.0, 1.0]))
    assert coverage.tolist() == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert risk.tolist() == pytest.approx([0.0, 0.0, 1 / 3])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda logits, targets: (logits[:19], targets[:19]), "20 images with known answers or more, not 19"),
        (lambda logits, targets: (logits, np.zeros_like(targets)), "all of the images are of one class"),
        (lambda logits, targets: (logits, logits.argmax(1)), "all 100 answers are right"),
        (lambda logits, targets: (logits * np.nan, targets), "NaN or infinite"),
    ],
)
def test_what_no_temperature_can_be_fitted_on(change, message):
    logits, targets = answers(1.0, count=100)
    with pytest.raises(DiffcernError, match=message):
        calibration.fit(*change(logits, targets))


def job(kind, folder, **fields):
    return make(kind, {"images": "embedded:digits/validation", "prior": "embedded:digits", **fields})


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A folder with a calibration of a cheap classifier, fitted on 200 digits, and the table's scores."""
    folder = tmp_path_factory.mktemp("kept")
    table = job(Calibrate, folder, keep=str(folder), options=CHEAP).carry_out(None)
    return folder, table.scores[0]


CHEAP = {"draws": 2, "stop": "", "strategy": "stratified"}


@pytest.mark.slow
def test_what_was_fitted_is_used_from_then_on(kept, tmp_path):
    folder, score = kept
    assert score["images"] == 200
    assert score["calibration_error_after"] < score["calibration_error_before"]
    some = tmp_path / "digits"
    some.mkdir()
    from torchvision.utils import save_image

    data = load_dataset("embedded:digits/validation")
    for k in (0, 10, 20):
        save_image(data[k].image, some / f"{k}.png")
    plain = job(Classify, folder, images=str(some), options=CHEAP).carry_out(None).rows
    scaled = job(Classify, folder, images=str(some), options=CHEAP, calibration=str(folder)).carry_out(None).rows
    assert [row["label"] for row in plain] == [row["label"] for row in scaled]
    assert any(abs(a["confidence"] - b["confidence"]) > 1e-3 for a, b in zip(plain, scaled, strict=True))
    unsure = job(Classify, folder, images=str(some), options=CHEAP, abstain_below=1.0).carry_out(None).rows
    assert {row["label"] for row in unsure} <= {"unsure", *(row["label"] for row in plain if row["confidence"] == 1)}


def test_another_method_s_calibration_is_none(kept):
    folder, _ = kept
    with pytest.raises(UsageError, match="no calibration for diffusion-classifier with these options"):
        job(Classify, folder, calibration=str(folder), options={**CHEAP, "draws": 3}).carry_out(None)


def test_it_is_kept_once_and_beside_others(kept):
    folder, _ = kept
    known = calibration.read(folder)
    assert len(known) == 1
    other = calibration.Calibration(2.0, (), {"method": "another"}, 20)
    for _ in range(2):
        calibration.keep(folder, other)
    assert calibration.read(folder) == (*known, other)
    (folder / calibration.FILE).write_text(json.dumps([{"temperature": "warm"}]))
    with pytest.raises(DiffcernError, match="holds no calibrations: delete it"):
        calibration.read(folder)
    (folder / calibration.FILE).unlink()
    assert calibration.read(folder) == ()


def test_what_calibrating_refuses(tmp_path):
    with pytest.raises(UsageError, match="give --keep FOLDER"):
        job(Calibrate, tmp_path).carry_out(None)
    with pytest.raises(UsageError, match="no such folder"):
        job(Calibrate, tmp_path, keep=str(tmp_path / "none")).carry_out(None)
    with pytest.raises(UsageError, match="leave it out here"):
        job(Calibrate, tmp_path, keep=str(tmp_path), calibration=str(tmp_path)).carry_out(None)


def test_a_batch_s_statistics_are_of_no_single_image(tmp_path):
    with pytest.raises(UsageError, match="tent reads the statistics of a batch"):
        job(Calibrate, tmp_path, keep=str(tmp_path), method="tent", predictor="embedded:digits").carry_out(None)


@pytest.mark.slow
def test_an_online_answer_is_not_an_episodic_one(tmp_path):
    from diffcern.jobs.adapt import Adapt

    one = {"steps": 1, "draws": 2}
    asked = {"prior": "embedded:digits", "predictor": "embedded:digits", "method": "diffusion-tta", "options": one}
    make(Calibrate, {"images": "embedded:digits/validation", "keep": str(tmp_path), **asked}).carry_out(None)
    fields = {"images": "embedded:digits/validation", "calibration": str(tmp_path), **asked}
    with pytest.raises(UsageError, match="no calibration for diffusion-tta"):
        make(Adapt, {**fields, "online": True}).load(None, None)
    assert make(Adapt, fields).load(None, None).settings["calibration"]


def test_the_digits_prior_ships_with_one_for_the_preset():
    from diffcern.jobs.images import calibration_folder

    (known,) = calibration.read(calibration_folder("embedded:digits"))
    asked = job(Classify, None).asked("diffusion-classifier", {"view": "centre"}, prior="embedded:digits")
    assert asked.settings["calibration"] == [known.temperature]
