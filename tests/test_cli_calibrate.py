"""`diffcern calibrate run` on the answers of a bench."""

import json

import pytest
from typer.testing import CliRunner

from diffcern.cli import app
from diffcern.errors import UsageError
from diffcern.jobs.calibrate import of_run

SPEC = """
name = "held-out"
[data]
dataset = "embedded:digits/validation"
count = 60
[models]
predictor = "embedded:digits"
prior = "embedded:digits"
[shifts]
names = ["clean", "noise"]
severities = [4]
[entries.source]
method = "source"
[entries.classifier]
method = "diffusion-classifier"
options = { draws = 2, strategy = "stratified", weighting = "x0" }
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    (folder / "spec.toml").write_text(SPEC)
    result = CliRunner().invoke(app, ["bench", str(folder / "spec.toml"), "--out", str(folder / "run")])
    assert result.exit_code == 0, result.output
    return folder / "run"


@pytest.mark.slow
def test_an_entry_s_temperature_is_of_its_answers(run, tmp_path):
    command = ["calibrate", "run", str(run), "--entry", "classifier", "--keep", str(tmp_path), "--json"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    score = json.loads(result.output)
    assert score["images"] == 120
    assert score["calibration_error_after"] < score["calibration_error_before"]
    about = json.loads((tmp_path / "calibration.json").read_text())[0]["about"]
    assert about["options"] == {"draws": 2, "strategy": "stratified", "weighting": "x0"}
    assert set(about["fingerprints"]) == {"prior"}
    shown = CliRunner().invoke(app, command[:-1])
    assert "calibration error" in shown.output
    clean = of_run(run, "classifier", "clean", False, str(tmp_path))
    assert clean["images"] == 60


def test_what_a_run_cannot_say(run, tmp_path):
    with pytest.raises(UsageError, match="--entry says whose answers, one of source, classifier"):
        of_run(run, None, "all", False, str(tmp_path))
    with pytest.raises(UsageError, match="entry"):
        of_run(run, "sauce", "all", False, str(tmp_path))
    with pytest.raises(UsageError, match="no folder of a bench"):
        of_run(tmp_path, None, "all", False, str(tmp_path))
    with pytest.raises(UsageError, match="shift of this run"):
        of_run(run, "source", "fog", False, str(tmp_path))
    with pytest.raises(UsageError, match="give --keep"):
        of_run(run, "source", "all", False, None)
