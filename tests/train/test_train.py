"""Training: it learns, and a run that was stopped and continued ends with the weights of one that was not."""

import dataclasses

import pytest
import torch

from diffcern.data import subset
from diffcern.data.digits import digits
from diffcern.errors import DiffcernError, UsageError
from diffcern.predictors import load_predictor
from diffcern.priors import load_prior
from diffcern.sampling import sample
from diffcern.solvers import usual_solver
from diffcern.train.augmentations import augment, augmentation_names, moved, relit
from diffcern.train.images import read_table
from diffcern.train.predictor import PredictorRecipe, train_predictor
from diffcern.train.prior import DIRICHLET, PriorRecipe, soften, train_prior
from diffcern.train.recipes import Regime

CPU = torch.device("cpu")
DATA = subset(digits("train"), 40, 0)
PRIOR = PriorRecipe(image_size=16, channels=1, width=16, depth=1, heads=2, patch=4, augmentation="affine")
PREDICTOR = PredictorRecipe(image_size=16, width=4, depth=1, augmentation="flip,crop")


def schedule(images=320, **options):
    return Regime(images=images, batch_size=16, learning_rate=1e-3, **options)


def test_prior_resumes_to_the_same_weights(tmp_path):
    whole, outcome = train_prior(DATA, PRIOR, schedule(), tmp_path / "a", device=CPU)
    assert outcome.finished
    _, stopped = train_prior(DATA, PRIOR, schedule(minutes=0.0), tmp_path / "b", device=CPU)
    assert not stopped.finished
    from diffcern.train import loop

    original, count = loop.time.monotonic, iter(range(10_000))
    loop.time.monotonic = lambda: next(count) * 1.0  # each look at the clock is a second: stops after some steps
    try:
        _, stopped = train_prior(DATA, PRIOR, schedule(minutes=0.3), tmp_path / "b", device=CPU)
    finally:
        loop.time.monotonic = original
    assert 0 < stopped.step < 20
    again, outcome = train_prior(DATA, PRIOR, schedule(), tmp_path / "b", device=CPU)
    assert outcome.finished
    for a, b in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    assert (tmp_path / "b" / "samples.png").exists()
    loaded = load_prior(str(tmp_path / "b"))
    assert loaded.class_names == tuple("0123456789")
    assert loaded.clean_errors.shape == (101,)
    assert 0 < loaded.clean_errors[0] < loaded.clean_errors[-1]
    assert len({path.stat().st_mode for path in (tmp_path / "b").rglob("*.*")}) == 1  # weights are read by others too


def test_other_settings_are_refused(tmp_path):
    train_prior(DATA, PRIOR, schedule(32), tmp_path, device=CPU)
    with pytest.raises(DiffcernError, match=r"other settings \(width was 16, is 32\)"):
        train_prior(DATA, dataclasses.replace(PRIOR, width=32), schedule(32), tmp_path, device=CPU)


def test_training_starts_from_a_trained_prior(tmp_path):
    trained, _ = train_prior(DATA, PRIOR, schedule(), tmp_path / "a", device=CPU)
    recipe = dataclasses.replace(PRIOR, init=str(tmp_path / "a"))
    started, _ = train_prior(DATA, recipe, schedule(minutes=0.0), tmp_path / "b", device=CPU)
    for a, b in zip(trained.parameters(), started.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-3)  # saved in fp16
    with pytest.raises(UsageError, match="another width, depth"):
        train_prior(DATA, dataclasses.replace(recipe, width=32), schedule(), tmp_path / "c", device=CPU)
    with pytest.raises(UsageError, match=r"has image_size 16, and this run 32"):
        train_prior(DATA, dataclasses.replace(recipe, image_size=32), schedule(), tmp_path / "d", device=CPU)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["v", "flow"])
def test_training_lowers_the_loss(objective, tmp_path):
    recipe = dataclasses.replace(PRIOR, objective=objective, augmentation="none")
    _, short = train_prior(DATA, recipe, schedule(16), tmp_path / "a", device=CPU)
    _, longer = train_prior(DATA, recipe, schedule(4800), tmp_path / "b", device=CPU)
    assert longer.loss < 0.8 * short.loss


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["x0", "flow"])
def test_a_prior_of_one_image_leads_to_it(objective, tmp_path):
    """The optimum is known: whatever the noise, that image; and so is where each objective's own sampler ends."""
    one = subset(digits("train"), 1, 0)
    recipe = dataclasses.replace(PRIOR, objective=objective, augmentation="none", width=32, image_size=8)
    regime = dataclasses.replace(schedule(3200), ema_decay=0.9, learning_rate=1e-2)
    prior, _ = train_prior(one, recipe, regime, tmp_path, device=CPU)
    image = prior.encode(one[0].image[None])
    told = prior.hypotheses()[[one[0].target] * 4]
    made = sample(prior, list("abcd"), told, steps=20, solver=usual_solver(prior))
    assert (made - image).square().mean().sqrt() < 0.2 * image.std()  # 200 steps of training leave a tenth


def test_predictor_learns(tmp_path):
    recipe = dataclasses.replace(PREDICTOR, augmentation="none", width=8)
    train_predictor(DATA, recipe, schedule(2400), tmp_path, device=CPU)
    predictor = load_predictor(str(tmp_path))
    table = read_table(DATA, 16)
    images, targets = table.batch(torch.arange(40), CPU)
    assert (predictor(images).argmax(-1) == targets).float().mean() > 0.9


@pytest.mark.parametrize("width", [4, 8])
def test_channels_stay_first_where_they_are_few(width, tmp_path):
    """Channels last, the backward pass of few channels corrupts memory on a CPU of AVX2: the process was gone."""
    recipe = dataclasses.replace(PREDICTOR, augmentation="none", width=width)
    predictor, _ = train_predictor(DATA, recipe, schedule(32), tmp_path, device=CPU)
    layers = [layer for layer in predictor.modules() if isinstance(layer, torch.nn.Conv2d)]
    second = next(layer for layer in layers if layer.in_channels == width and layer.kernel_size == (3, 3))
    assert second.weight.is_contiguous(memory_format=torch.channels_last) == (width == 8)


def test_bad_recipes(tmp_path):
    with pytest.raises(UsageError, match="eps, x0, v, flow"):
        train_prior(DATA, dataclasses.replace(PRIOR, objective="y"), schedule(), tmp_path, device=CPU)
    with pytest.raises(UsageError, match="multiple"):
        train_prior(DATA, dataclasses.replace(PRIOR, patch=5), schedule(), tmp_path, device=CPU)
    with pytest.raises(UsageError, match="'flip'"):
        augmentation_names("flop")


def test_a_name_with_brackets_is_no_markup():
    data = dataclasses.replace(digits("test"), name="imagefolder:x[/y]")
    assert len(read_table(data, 16).images) == 400


def test_the_folder_is_ours_or_empty(tmp_path):
    (tmp_path / ".hidden").touch()
    train_predictor(DATA, PREDICTOR, schedule(minutes=0.0), tmp_path, device=CPU)
    modes = {path.name: path.stat().st_mode for path in tmp_path.iterdir()}
    assert modes["model.safetensors"] == modes["predictor.json"] == modes[".hidden"]  # what the umask says
    (tmp_path / "checkpoint.pt").unlink()
    with pytest.raises(DiffcernError, match=r"holds model\.safetensors, predictor\.json and no checkpoint\.pt"):
        train_predictor(DATA, PREDICTOR, schedule(), tmp_path, device=CPU)
    torch.save({}, tmp_path / "checkpoint.pt")
    with pytest.raises(DiffcernError, match="Delete it to start again"):
        train_predictor(DATA, PREDICTOR, schedule(), tmp_path, device=CPU)


def test_a_diverging_run_says_so(tmp_path):
    bad = dataclasses.replace(schedule(3200), learning_rate=1e18, warmup=0.0)
    with pytest.raises(DiffcernError, match="--learning-rate"):
        train_prior(DATA, PRIOR, bad, tmp_path, device=CPU)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_ctrl_c_stops_between_steps_and_resumes_exactly(tmp_path, monkeypatch):
    import os
    import signal

    from diffcern.train import prior as module

    whole, _ = train_prior(DATA, PRIOR, schedule(), tmp_path / "a", device=CPU)
    original, calls = module._loss, []

    def press_ctrl_c(*arguments):
        calls.append(1)
        if len(calls) == 7:
            os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments)

    monkeypatch.setattr(module, "_loss", press_ctrl_c)
    _, stopped = train_prior(DATA, PRIOR, schedule(), tmp_path / "b", device=CPU)
    assert (stopped.finished, stopped.interrupted, stopped.step) == (False, True, 7)
    again, _ = train_prior(DATA, PRIOR, schedule(), tmp_path / "b", device=CPU)
    for a, b in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_another_light_leaves_half_of_the_images_and_every_map():
    images, rng = torch.rand(400, 3, 8, 8), torch.Generator().manual_seed(0)
    assert torch.equal(relit(images, ("flip",), rng), images)
    lit = relit(images, ("light",), rng)
    left = torch.tensor([torch.equal(a, b) for a, b in zip(images, lit, strict=True)])
    assert 0.4 < left.float().mean() < 0.6
    assert torch.equal(lit, lit.clamp(0, 1))
    ranks = [x[~left].flatten(2).argsort(-1).argsort(-1).float() for x in (images, lit)]
    assert (ranks[0] - ranks[1]).abs().mean() < 2  # monotone in every channel, but for what is clipped
    assert torch.equal(moved(images, ("light",), rng), images)  # what maps are moved by

    spans = [x[~left].flatten(1).std(1) for x in (images, lit)]
    assert (spans[1] < spans[0] / 2).float().mean() > 0.2  # contrast as low as behind a veil


def test_augmentations():
    images = torch.rand(64, 1, 16, 16)
    rng = torch.Generator().manual_seed(0)
    assert torch.equal(augment(images, (), rng), images)
    flipped = augment(images, ("flip",), rng)
    same = (flipped - images).abs().flatten(1).amax(1) < 1e-4
    mirrored = (flipped - images.flip(-1)).abs().flatten(1).amax(1) < 1e-4
    assert (same | mirrored).all()
    assert 10 < same.sum() < 54
    moved = augment(images, ("crop",), rng)  # whole pixels: the interior is an exact copy
    inner = [torch.roll(images, (dy, dx), (-2, -1)) for dy in range(-2, 3) for dx in range(-2, 3)]
    best = torch.stack([(moved - c)[..., 3:-3, 3:-3].abs().flatten(1).amax(1) for c in inner]).amin(0)
    assert best.max() < 1e-4


def test_augmentations_of_images_that_are_no_squares():
    """A shift is as many pixels of each side as that has eighths, and a turn keeps lengths."""
    images = torch.rand(64, 1, 16, 40)
    moved = augment(images, ("crop",), torch.Generator().manual_seed(0))
    steps = [(dy, dx) for dy in range(-2, 3) for dx in range(-5, 6)]
    inner = [torch.roll(images, step, (-2, -1)) for step in steps]
    error = torch.stack([(moved - c)[..., 3:-3, 6:-6].abs().flatten(1).amax(1) for c in inner])
    assert error.amin(0).max() < 1e-4  # whole pixels: the interior is an exact copy
    taken = [steps[k] for k in error.argmin(0).tolist()]
    assert {abs(dy) for dy, _ in taken} == {0, 1, 2}
    assert max(abs(dx) for _, dx in taken) == 5

    y, x = torch.meshgrid(torch.arange(48) - 23.5, torch.arange(96) - 47.5, indexing="ij")
    ratios, _ = axes((x**2 + y**2 < 14**2).float(), x, y)
    assert ratios.max() < 1.02  # a disc stays one: a turn that forgets the sides makes it 1.2 times as long as wide
    _, angles = axes(((x.abs() < 20) & (y.abs() < 2)).float(), x, y)
    assert 7 < angles.max() < 8.1
    assert -8.1 < angles.min() < -7


def axes(shape, x, y):
    """Length over width of a shape `[H, W]` under 64 random turns, and the angle of its length in degrees."""
    turned = augment(shape.expand(64, 1, -1, -1), ("affine",), torch.Generator().manual_seed(1))[:, 0]
    weight = turned / turned.sum((1, 2), keepdim=True)
    dx, dy = (v - (weight * v).sum((1, 2))[:, None, None] for v in (x, y))
    xx, xy, yy = ((weight * a * b).sum((1, 2)) for a, b in ((dx, dx), (dx, dy), (dy, dy)))
    spread = torch.linalg.eigvalsh(torch.stack([xx, xy, xy, yy], 1).view(-1, 2, 2)).sqrt()
    return spread[:, 1] / spread[:, 0], torch.rad2deg(torch.atan2(2 * xy, xx - yy) / 2)


def test_soft_labels_follow_the_posterior_dirichlet():
    """E[c | y] = (a 1 + e_y) / (K a + 1), and none of it where the share is 0."""
    rng = torch.Generator().manual_seed(0)
    targets = torch.full((20_000,), 2)
    c = soften(targets, 4, 1.0, rng)
    assert torch.allclose(c.sum(1), torch.ones(20_000), atol=1e-5)
    expected = (DIRICHLET + torch.eye(4)[2]) / (4 * DIRICHLET + 1)
    assert torch.allclose(c.mean(0), expected, atol=0.01)  # 5 standard errors
    assert torch.equal(soften(targets[:5], 4, 0.0, rng), torch.eye(4)[targets[:5]])
    half = soften(targets, 4, 0.5, rng)
    assert 0.48 < (half[:, 2] == 1).float().mean() < 0.53
