"""`diffcern align` as a user runs it."""

import json

import pytest
import torch
from hub_checkpoints import ddpm, dit, stable_diffusion
from predictors.checkpoints import clip
from typer.testing import CliRunner

from diffcern.cli import app
from diffcern.data import decode, load_dataset
from diffcern.errors import DiffcernError, UsageError
from diffcern.methods import build_method
from diffcern.predictors import load_predictor
from diffcern.priors import load_prior
from diffcern.sampling import sample
from diffcern.tasks import Classification
from diffcern.train import finetune_predictor as stages
from diffcern.types import Inputs

MODELS = ["--predictor", "embedded:digits", "--generator", "embedded:digits", "--prior", "embedded:digits"]
SHORT = [
    "--per-class",
    "2",
    "--preset",
    "paper",
    "--generator-steps",
    "3",
    "--set",
    "steps=2",
    "--set",
    "weight=0.3",
    "--epochs",
    "2",
]


def run(*arguments):
    return CliRunner().invoke(app, ["align", *MODELS, *SHORT, "--device", "cpu", *map(str, arguments)])


def test_from_the_command_to_an_answer(tmp_path):
    result = run("-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "validation loss" in result.output
    settings = json.loads((tmp_path / "out" / "align.json").read_text())
    assert settings["options"]["steps"] == 2
    assert settings["options"]["start"] == 499  # defaults are written down too
    assert len(load_dataset(f"imagefolder:{tmp_path / 'out' / 'aligned'}")) == 20
    predictor, prior = load_predictor("embedded:digits"), load_prior("embedded:digits")
    adapted = load_predictor(str(tmp_path / "out" / "predictor"))
    task = Classification(predictor.class_names, prior.class_names)
    images = torch.stack([load_dataset("embedded:digits")[i].image for i in range(4)])
    answers = {}
    for ensemble in ("sum", "none"):
        method = build_method("sda", predictor, prior, task, {"aligned": str(tmp_path / "out"), "ensemble": ensemble})
        answers[ensemble] = method.step(None, Inputs(images, list("abcd")), 0)[0].probabilities
        purified = method.purifier(images, list("abcd"))
    after, source = torch.softmax(adapted(purified), -1), torch.softmax(predictor(images), -1)
    assert torch.allclose(answers["none"], after, atol=1e-5)
    assert torch.allclose(answers["sum"], (source + after) / 2, atol=1e-5)
    again = run("-o", tmp_path / "out")
    assert again.exit_code == 0
    assert "validation loss" not in again.output  # nothing was done again
    other = run("-o", tmp_path / "out", "--seed", "1", "--guidance-scale", "2")
    assert isinstance(other.exception, DiffcernError)
    assert "sampling.guidance_scale was 1.0, is 2.0, seed was 0, is 1" in str(other.exception)


def test_some_classes_without_resynthesis(tmp_path):
    result = run("-o", tmp_path / "out", "--labels", "7,1", "--skip-resynthesis")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["align.json", "generated", "predictor"]
    assert load_predictor(str(tmp_path / "out" / "predictor")).class_names == ("7", "1")


SHORTEST = ["--per-class", "1", "--generator-steps", "2", "--set", "steps=2", "--epochs", "1", "--device", "cpu"]


def test_labels_of_your_own(tmp_path):
    """CLIP and a generator that reads text are told the same sentences, which the folder remembers; so is the method
    that answers with it."""
    clip(tmp_path / "clip")
    models = ["--predictor", tmp_path / "clip", "--generator", stable_diffusion(tmp_path / "sd")]
    models += ["--prior", ddpm(tmp_path / "ddpm"), *SHORTEST, "-o", tmp_path / "out"]
    words = ["--labels", "cat,dog", "--prompt", "a {}"]
    result = CliRunner().invoke(app, ["align", *map(str, models), *words])
    assert result.exit_code == 0, result.output + repr(result.exception)
    settings = json.loads((tmp_path / "out" / "align.json").read_text())
    assert (settings["classes"], settings["prompts"]) == (["cat", "dog"], [["a cat"], ["a dog"]])
    again = CliRunner().invoke(app, ["align", *map(str, models), "--labels", "cat,dog", "--prompt", "one {}"])
    assert "prompts was [['a cat'], ['a dog']], is [['one cat'], ['one dog']]" in str(again.exception)
    (tmp_path / "x.png").write_bytes((tmp_path / "out" / "generated" / "cat" / "0.png").read_bytes())
    answer = ["adapt", tmp_path / "x.png", *models[:2], *models[4:6], *words, "--method", "sda"]
    answer += ["--set", f"aligned={tmp_path / 'out'}", "--out", tmp_path / "x.json"]
    result = CliRunner().invoke(app, [*map(str, answer)])
    assert result.exit_code == 0, result.output + repr(result.exception)
    assert json.loads((tmp_path / "x.json").read_text())[0]["after"] in ("cat", "dog")


def test_classes_that_the_generator_calls_otherwise(tmp_path):
    """The map decides which of its classes an image is made of."""
    name = str(dit(tmp_path / "dit"))
    models = ["--predictor", "embedded:digits", "--generator", name, "--prior", "embedded:digits", *SHORTEST]
    models += ["--labels", "7,3", "-o", str(tmp_path / "out"), "--skip-resynthesis"]
    result = CliRunner().invoke(app, ["align", *models])
    assert isinstance(result.exception, DiffcernError)
    assert "the prior lacks 7, 3" in str(result.exception)
    (tmp_path / "map.json").write_text('{"great white shark": "7", "tench": "3"}')
    result = CliRunner().invoke(app, ["align", *models, "--class-map", str(tmp_path / "map.json")])
    assert result.exit_code == 0, result.output + repr(result.exception)
    prior = load_prior(name)
    for id, index in {"7/0": 2, "3/0": 0}.items():
        image = decode(tmp_path / "out" / "generated" / f"{id}.png", id)
        made = prior.decode(sample(prior, [id], prior.hypotheses()[[index]], steps=2, solver="ddim", seed=0))
        assert torch.allclose(image, made[0], atol=1 / 255)


def test_sentences_need_a_reader(tmp_path):
    result = run("-o", tmp_path / "out", "--prompt", "a {}")
    assert "--prompt is for models that read text" in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_ctrl_c(tmp_path, monkeypatch):
    original = stages.finetune

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "finetune", interrupted)
    result = run("-o", tmp_path / "out")
    assert result.exit_code == 130
    assert "run the same command to continue" in result.output
    monkeypatch.setattr(stages, "finetune", original)
    assert run("-o", tmp_path / "out").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "sda"], "--method is one of diffpure, dda, gda"),
        (["--recipe", "large"], "--recipe is one of paper, paper-resnet50, small"),
        (["--set", "ensemble=none"], "ensemble: options of --method sda"),
        (["--set", "wieght=1"], "unknown option of dda 'wieght'"),
        (["--generator-solver", "euler"], "does not fit a prior"),
        (["--labels", "1,cat"], "asked for classes: cat"),
    ],
)
def test_what_does_not_fit(tmp_path, arguments, message):
    with pytest.raises(UsageError, match=message):
        raise run("-o", tmp_path / "out", *arguments).exception
    assert not (tmp_path / "out").exists()
