"""The masked autoencoder's two phases: they learn, resume to equal weights, and the folder reads back."""

import dataclasses

import pytest
import torch

from diffcern.data import subset
from diffcern.data.digits import digits
from diffcern.errors import DiffcernError
from diffcern.methods import build_method
from diffcern.predictors import load_predictor
from diffcern.rng import generator
from diffcern.train import loop
from diffcern.train.images import read_table
from diffcern.train.mae import MaeRecipe, train_mae
from diffcern.train.recipes import Regime
from diffcern.types import Inputs

CPU = torch.device("cpu")
DATA = subset(digits("train"), 40, 0)
RECIPE = MaeRecipe(
    image_size=16, width=16, depth=1, heads=2, patch=4, decoder_depth=1, augmentation="affine", head_images=160
)


def schedule(images=160, **options):
    return Regime(images=images, batch_size=16, learning_rate=2e-3, **options)


def stop_after(seconds, monkeypatch):
    """Each look at the clock is a second."""
    count = iter(range(10_000))
    monkeypatch.setattr(loop.time, "monotonic", lambda: next(count) * 1.0)
    return {"minutes": seconds / 60}


@pytest.mark.parametrize(("seconds", "head"), [(8, False), (35, True)])  # a stop in either phase
def test_resumes_to_the_same_weights(tmp_path, monkeypatch, seconds, head):
    whole, outcome, _ = train_mae(DATA, RECIPE, schedule(), tmp_path / "a", device=CPU)
    assert (outcome.finished, outcome.step) == (True, 10)
    with monkeypatch.context() as patch:
        early = schedule(**stop_after(seconds, patch))
        _, stopped, _ = train_mae(DATA, RECIPE, early, tmp_path / "b", device=CPU)
    assert 0 < stopped.step < 10
    assert (tmp_path / "b" / "checkpoint.pt").exists() == head
    assert (tmp_path / "b" / "mae.json").exists() == head
    again, outcome, _ = train_mae(DATA, RECIPE, schedule(), tmp_path / "b", device=CPU)
    assert outcome.finished
    for a, b in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_head_leaves_the_encoder_alone(tmp_path):
    short, _, _ = train_mae(DATA, RECIPE, schedule(), tmp_path / "a", device=CPU)
    recipe = dataclasses.replace(RECIPE, head_images=16)
    longer, _, _ = train_mae(DATA, recipe, schedule(), tmp_path / "b", device=CPU)
    pairs = zip(short.model.reconstruction.parameters(), longer.model.reconstruction.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(short.model.head.classes.weight, longer.model.head.classes.weight)


@pytest.mark.slow
def test_both_phases_learn_and_the_folder_reads_back(tmp_path):
    recipe = dataclasses.replace(RECIPE, width=32, augmentation="none", head_images=4800)
    trained, _, _ = train_mae(DATA, recipe, schedule(3200), tmp_path, device=CPU)
    untrained, _, _ = train_mae(DATA, recipe, schedule(minutes=0.0), tmp_path / "raw", device=CPU)
    images, targets = read_table(DATA, 16).batch(torch.arange(40), CPU)
    with torch.no_grad():
        losses = [p.model.reconstruction_loss(p.prepare(images), generator(0)).item() for p in (untrained, trained)]
    assert losses[1] < 0.8 * losses[0]
    loaded = load_predictor(str(tmp_path))
    assert loaded.class_names == tuple("0123456789")
    with torch.no_grad():
        assert (loaded(images).argmax(-1) == targets).float().mean() > 0.4  # chance is 0.1
        assert torch.allclose(loaded(images), trained(images), atol=0.05)  # saved in fp16
    method = build_method("ttt-mae", loaded, None, None, {"steps": 2, "masks": 4})
    assert method.step(method.init(), Inputs(images[:1], ["a"]), 0)[0].output.shape == (1, 10)


def test_a_broken_folder_says_so(tmp_path):
    train_mae(DATA, RECIPE, schedule(16), tmp_path, device=CPU)
    with pytest.raises(DiffcernError, match=r"other settings \(width was 16, is 32\)"):
        train_mae(DATA, dataclasses.replace(RECIPE, width=32), schedule(16), tmp_path, device=CPU)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(DiffcernError, match=r"truncated"):
        load_predictor(str(tmp_path))
