"""The arithmetic of `benchmarks/effective_robustness.py`, on answers whose line is known by construction."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diffcern.errors import UsageError
from diffcern.report.records import load

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "effective_robustness.py"
if not SCRIPT.is_file():
    pytest.skip("the benchmarks are not here", allow_module_level=True)
BENCH = runpy.run_path(str(SCRIPT))

N = 1000
CLEAN = {"weak": 0.5, "fair": 0.7, "good": 0.85, "strong": 0.95}
SLOPE, FALL = 0.8, {"drawing": 1.0, "light": 0.25}  # logit(shifted) = SLOPE logit(clean) - FALL


def share(clean: float, shift: str) -> float:
    """The line by construction."""
    odds = (clean / (1 - clean)) ** SLOPE * np.exp(-FALL[shift])
    return odds / (1 + odds)


def build(folder: Path, entry: str, right: dict[str, float], n: int = N, seed: int = 0) -> Path:
    """A run folder with one entry that is right on those shares of the images, the same ones first."""
    luck = np.random.default_rng(seed).permutation(n)
    many = n * len(right)
    table = {
        "entry": [entry] * many,
        "method": ["source" if entry == "source" else "diffusion-classifier"] * many,
        "dataset": ["scenes"] * many,
        "shift": np.repeat(list(right), n),
        "severity": np.repeat([0 if shift == "clean" else 4 for shift in right], n),
        "id": [f"{i:05d}" for i in range(n)] * len(right),
        "target": np.ones(many, int),
        "prediction": np.concatenate([luck < round(accuracy * n) for accuracy in right.values()]).astype(int),
        "probabilities": [[]] * many,
        "nfe_forward": np.zeros(many),
        "nfe_backward": np.zeros(many),
        "loss_trace": [[]] * many,
    }
    (folder / "records").mkdir(parents=True)
    pq.write_table(pa.table(table), folder / "records" / "0.parquet")
    return folder


@pytest.fixture(scope="module")
def predictors(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("predictors")
    return [
        build(folder / name, "source", {"clean": clean, **{shift: share(clean, shift) for shift in FALL}})
        for name, clean in CLEAN.items()
    ]


def judged(folders: list[Path]) -> dict[tuple[str, str], dict]:
    answers = BENCH["read_answers"]([load(folder) for folder in folders])
    rows = [row for shift in BENCH["judge"](answers) for row in BENCH["rows_of"](shift, answers)]
    return {(row["shift"], row["entry"]): row for row in rows}


def test_effective_robustness_is_what_was_added_to_the_line(predictors, tmp_path):
    gain = {"drawing": 0.2, "light": 0.0}
    right = {"clean": 0.8, **{shift: share(0.8, shift) + gain[shift] for shift in FALL}}
    rows = judged([*predictors, build(tmp_path / "prior", "diffusion-classifier", right, seed=1)])
    for shift in FALL:
        row = rows[shift, "diffusion-classifier"]
        # shares are rounded to 1/1000, which moves logits at 0.95 by up to 0.01
        assert row["slope"][0] == pytest.approx(SLOPE, abs=0.02)
        assert row["intercept"][0] == pytest.approx(-FALL[shift], abs=0.02)
        value, low, high = row["effective_robustness"]
        assert value == pytest.approx(gain[shift], abs=3e-3)
        assert low < value < high
        assert (low > 0) == (gain[shift] > 0)
        assert row["shifted"][0] - row["line"][0] == pytest.approx(value)
        assert not row["extrapolated"]
        for name in CLEAN:
            assert rows[shift, name]["predictor"]
            assert rows[shift, name]["effective_robustness"][0] == pytest.approx(0, abs=3e-3)
        assert row["scatter"] < 3e-3
    mean = rows["mean", "diffusion-classifier"]
    assert mean["shifted"][0] == pytest.approx(np.mean([right[shift] for shift in FALL]), abs=1e-3)
    # the mean of two lines of slope 0.8 in logits is nearly such a line
    assert mean["effective_robustness"][0] == pytest.approx(0.1, abs=0.01)


def test_intervals_are_paired(predictors, tmp_path):
    """An entry with a predictor's own answers differs from it by none in any resample, so it shares its residual."""
    twin = build(tmp_path / "twin", "diffusion-tta", {"clean": 0.7, **{s: share(0.7, s) for s in FALL}})
    rows = judged([*predictors, twin])
    for key in ("in_distribution", "shifted", "line", "effective_robustness"):
        assert rows["drawing", "diffusion-tta"][key] == rows["drawing", "fair"][key]
    _, low, high = rows["drawing", "diffusion-tta"]["effective_robustness"]
    _, shifted_low, shifted_high = rows["drawing", "diffusion-tta"]["shifted"]
    assert high - low < 0.8 * (shifted_high - shifted_low)  # unpaired it would be wider than either of its two parts


def test_the_line_is_that_of_least_squares():
    x, y = np.random.default_rng(0).normal(size=(2, 5, 7))
    slope, intercept = BENCH["fit"](x, y)
    expected = np.array([np.polyfit(a, b, 1) for a, b in zip(x, y, strict=True)])
    np.testing.assert_allclose(np.stack([slope, intercept], 1), expected, rtol=1e-9)
    assert np.isnan(BENCH["fit"](np.full((1, 4), 0.3), y[:1, :4])[0]).all()


def test_none_and_all_right_have_a_logit():
    n = 40
    found = BENCH["logit"](np.array([0.0, 1 / n, 0.5, 1 - 1 / n, 1.0]), n)
    p = np.array([0.5 / 41, 1 / 40, 0.5, 39 / 40, 40.5 / 41])
    np.testing.assert_allclose(found, np.log(p / (1 - p)), atol=1e-12)
    assert (np.diff(found) > 0).all()


def test_a_perfect_predictor_does_not_break_the_line(predictors, tmp_path):
    perfect = build(tmp_path / "perfect", "source", {"clean": 1.0, "drawing": 0.9, "light": 1.0})
    row = judged([*predictors, perfect])["light", "perfect"]
    assert np.isfinite(row["effective_robustness"]).all()
    assert row["shifted"][0] == 1  # only logits are bounded


def test_only_images_that_all_answered_count(predictors, tmp_path):
    few = build(tmp_path / "few", "diffusion-classifier", {"clean": 0.8, "drawing": 0.6, "light": 0.7}, n=100)
    rows = judged([*predictors, few])
    assert {row["n"] for row in rows.values()} == {100}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folders, tmp_path: folders[:2], "at least 3 predictors"),
        (lambda folders, tmp_path: [*folders, folders[0]], "named twice"),
        (
            lambda folders, tmp_path: [
                *folders,
                build(tmp_path / "again", "source", {"clean": 0.7, **{s: share(0.7, s) for s in FALL}}),
            ],
            "every answer alike",
        ),
        (
            lambda folders, tmp_path: [*folders, build(tmp_path / "other", "dusa", {"clean": 0.7, "light": 0.6}, 50)],
            "not of the same",
        ),
        (
            lambda folders, tmp_path: [
                build(tmp_path / f"equal-{seed}", "source", {"clean": 0.7, "light": 0.6}, 50, seed) for seed in range(3)
            ],
            "same accuracy",
        ),
    ],
)
def test_runs_that_give_no_line_are_errors(predictors, tmp_path, change, message):
    with pytest.raises(UsageError, match=message):
        judged(change(predictors, tmp_path))


def test_the_script_writes_its_rows_and_its_plot(predictors, tmp_path, monkeypatch, capsys):
    prior = build(tmp_path / "prior", "diffusion-classifier", {"clean": 0.4, "drawing": 0.4, "light": 0.35}, seed=1)
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, [*predictors, prior]), "--out", str(out)])
    BENCH["main"]()
    found = json.loads((out / "effective-robustness.json").read_text())
    assert found["images"] == N
    assert [row["shift"] for row in found["rows"][:: len(predictors) + 1]] == ["drawing", "light", "mean"]
    assert (out / "effective-robustness.png").stat().st_size > 10_000
    assert "The line is extrapolated" in capsys.readouterr().out  # no predictor is as weak as 0.4
