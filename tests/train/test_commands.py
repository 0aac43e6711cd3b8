"""The training commands run to success, and pass every option on under its own name."""

import json

import pytest
import torch

from diffcern.priors import load_prior

FEW = ("--images", 32, "--batch-size", 16, "--device", "cpu", "--seed", 3, "--learning-rate", 2e-3, "--ema-decay", 0.9)
SHARED = {"images": 32, "batch_size": 16, "seed": 3, "learning_rate": 2e-3, "ema_decay": 0.9}
SQUARE = ("--image-size", 16)
TOWER = ("--width", 24, "--depth", 1, "--heads", 3, "--patch", 8)
ANSWERER = ("--width", 24, "--depth", 1, "--heads", 3, "--text-width", 16, "--text-depth", 2, "--text-heads", 4)
COMMANDS = {  # every architecture option has a value of its own
    "prior": (
        ("embedded:digits/validation", *SQUARE, *TOWER, "--grey"),
        {"width": 24, "depth": 1, "heads": 3, "patch": 8, "channels": 1, "image_size": 16, "objective": "x0"},
    ),
    "predictor": (
        ("embedded:digits/validation", *SQUARE, "--width", 6, "--depth", 1, "--augment", "crop"),
        {"width": 6, "depth": 1, "image_size": 16, "augmentation": "crop", "architecture": "small-resnet"},
    ),
    "mae": (
        ("embedded:digits/validation", *SQUARE, *TOWER, "--decoder-depth", 2, "--head-depth", 0, "--head-images", 32),
        {"width": 24, "depth": 1, "heads": 3, "patch": 8, "decoder_depth": 2, "head_depth": 0, "image_size": 16},
    ),
    "answerer": (
        ("embedded:scenes/validation", *SQUARE, "--patch", 8, *ANSWERER, "--questions", 2),
        {"width": 24, "depth": 1, "heads": 3, "text_width": 16, "text_depth": 2, "text_heads": 4, "patch": 8},
    ),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_trains_what_it_was_told(cli, tmp_path, monkeypatch, command):
    from diffcern.data.scenes import Scenes

    monkeypatch.setattr(Scenes, "__len__", lambda self: 8)  # rendered one by one
    arguments, own = COMMANDS[command]
    code, out, err = cli("train", command, *arguments, *FEW, "--out", tmp_path / "out")
    assert code == 0, err
    assert "finished" in out + err
    settings = {}
    for checkpoint in sorted((tmp_path / "out").rglob("checkpoint.pt")):
        settings = {**json.loads(torch.load(checkpoint)["settings"]), **settings}
    assert {name: settings.get(name) for name in SHARED | own} == SHARED | own


def test_the_saved_weights_are_the_averaged_ones(cli, tmp_path):
    arguments, _ = COMMANDS["prior"]
    more = ("--images", 320, "--learning-rate", 2e-2, "--ema-decay", 0.999)
    assert cli("train", "prior", *arguments, *FEW, *more, "--out", tmp_path)[0] == 0
    state = torch.load(tmp_path / "checkpoint.pt")
    prior, average = load_prior(str(tmp_path)), state["ema"]["shadow_params"]
    parameters = dict(prior.named_parameters())
    assert len(parameters) == len(average)
    for (name, value), averaged in zip(parameters.items(), average, strict=True):
        assert torch.equal(value, averaged.half().float()), name
    raw = [state["model"][name.removeprefix("denoiser.")] for name in parameters]
    apart = max((one - two).abs().max() for one, two in zip(raw, average, strict=True))
    assert apart > 1e-2, "both are the same: nothing was tested"
