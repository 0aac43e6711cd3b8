"""What may be added to a prior's loss: rivals, representations, other noise levels; each against its equation."""

import math

import pytest
import torch
from torch.nn import functional as F

from diffcern.data import load_dataset, subset
from diffcern.errors import UsageError
from diffcern.predictors import load_predictor
from diffcern.priors import GaussianMixturePrior, load_prior
from diffcern.train.denoising import denoising_errors, noised
from diffcern.train.prior import PriorRecipe, train_prior
from diffcern.train.recipes import Regime
from diffcern.train.representations import Representations
from diffcern.train.rivals import evidence_slope, other_classes, rival_loss
from diffcern.types import Condition

CPU = torch.device("cpu")
SMALL = {"image_size": 16, "channels": 1, "width": 16, "depth": 2, "heads": 2, "patch": 4}


def test_the_evidence_of_all_noise_levels_is_the_likelihood_ratio():
    """On the exact prior: the mean of LLR over t is log p(x | c) - log p(x | c')."""
    means = torch.stack([torch.full((3, 2, 2), value) for value in (-0.3, 0.3)])
    prior = GaussianMixturePrior(means, std=0.5, log_snr=(9.0, -9.0))
    latents = torch.full((1, 3, 2, 2), 0.1)
    count = 20_000
    rng = torch.Generator().manual_seed(0)
    rows = noised(prior, latents.expand(count, -1, -1, -1), rng)
    x_t = prior.add_noise(rows.latents, rows.timesteps, rows.noise)
    errors = [
        (rows.noise - prior(x_t, rows.timesteps, Condition(classes=torch.eye(2)[k].expand(count, -1))).eps)
        .square()
        .flatten(1)
        .mean(1)
        for k in range(2)
    ]
    slope = evidence_slope(prior)[rows.timesteps]
    assert slope.mean() == pytest.approx(18, rel=1e-2)  # of a log SNR that falls from 9 to -9
    evidence = (slope / 2 * 12 * (errors[0] - errors[1])).mean()
    expected = prior.log_likelihood(latents)[0]
    assert evidence == pytest.approx((expected[1] - expected[0]).item(), rel=0.05)
    torch.testing.assert_close(
        rival_loss(errors[1], errors[0], slope, 12), F.softplus(-slope * 6 * (errors[0] - errors[1]))
    )
    torch.testing.assert_close(
        rival_loss(errors[1], errors[0], slope, 12, 0.1), F.softplus(-0.1 * slope * 6 * (errors[0] - errors[1]))
    )


def test_a_rival_is_another_class():
    targets = torch.arange(1000) % 7
    others = other_classes(targets, 7, torch.Generator().manual_seed(0))
    assert (others != targets).all()
    assert others.min() == 0
    assert others.max() == 6
    counts = torch.bincount((others - targets) % 7, minlength=7)
    assert counts[1:].min() > 110  # of 167 each


def test_logit_normal_times(prior):
    times = noised(prior, torch.zeros(4000, 3, 8, 8), torch.Generator().manual_seed(0), "logit-normal").time
    z = (times / (1 - times)).log()
    assert z.mean().abs() < 0.02
    assert z.std() == pytest.approx(1, rel=0.02)
    assert times.min() > 0
    assert times.max() < 1


def test_representations_are_the_cosine_of_patches():
    """Of what a block hears and what the encoder sees, averaged over the patch."""
    encoder, prior = load_predictor("embedded:digits"), load_prior("embedded:digits")
    aligned = Representations(prior.denoiser, encoder, 2, 16)
    data = load_dataset("embedded:digits")
    images = torch.stack([data[i].image for i in range(3)])
    heard = []
    prior.denoiser.transformer_blocks[1].register_forward_hook(lambda m, given, output: heard.append(output))
    prior(prior.encode(images), torch.tensor([5, 500, 900]), Condition(classes=torch.eye(10)[:3]))
    found = aligned.loss(images)
    maps = []
    last = [m for m in encoder.model if isinstance(m, torch.nn.ReLU)][-1]
    last.register_forward_hook(lambda m, given, output: maps.append(output))
    encoder(images)
    patches = F.adaptive_avg_pool2d(maps[0], 16 // prior.denoiser.config.patch_size).flatten(2).mT
    cosine = F.cosine_similarity(aligned.project(heard[0]), patches, dim=-1)
    assert found.item() == pytest.approx(-cosine.mean().item(), abs=1e-5)
    assert not any("_encoder" in name for name, _ in aligned.named_parameters())
    with pytest.raises(UsageError, match="block 9 is none"):
        Representations(prior.denoiser, encoder, 9, 16)


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe",
    [
        {"rivals": 0.5, "rival_temper": 0.03, "soft_labels": 0.0, "weighting": "min-snr"},
        {"align": "embedded:digits", "align_block": 1},
        {"align": "embedded:digits", "align_block": 1, "rivals": 0.5, "soft_labels": 0.0},
        {"times": "logit-normal", "weighting": "v"},
    ],
)
def test_training_with_it_learns_resumes_and_leaves_an_ordinary_prior(tmp_path, recipe):
    data = subset(load_dataset("embedded:digits/train"), 60, 0)
    schedule = Regime(images=30 * 16, batch_size=16, learning_rate=3e-3)
    whole, outcome = train_prior(data, PriorRecipe(**SMALL, **recipe), schedule, tmp_path / "whole", device=CPU)
    assert outcome.finished
    assert math.isfinite(outcome.loss)
    again = load_prior(str(tmp_path / "whole"))
    assert {name for name, _ in again.named_parameters()} == {name for name, _ in whole.named_parameters()}
    assert not any("project" in name for name, _ in again.named_parameters())

    stopped = Regime(images=30 * 16, batch_size=16, learning_rate=3e-3, minutes=0.0)
    train_prior(data, PriorRecipe(**SMALL, **recipe), stopped, tmp_path / "again", device=CPU)
    resumed, _ = train_prior(data, PriorRecipe(**SMALL, **recipe), schedule, tmp_path / "again", device=CPU)
    for mine, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.slow
def test_rivals_teach_classes(tmp_path):
    """With the term a prior tells the true class from another better than without it, after as many steps."""
    data = subset(load_dataset("embedded:digits/train"), 40, 0)
    schedule = Regime(images=120 * 20, batch_size=20, learning_rate=3e-3, ema_decay=0.9)
    images = torch.stack([data[i].image for i in range(40)]).repeat(8, 1, 1, 1)
    targets = torch.tensor(data.targets).repeat(8)
    losses = []
    for rivals in (0.0, 1.0):
        recipe = PriorRecipe(**SMALL, soft_labels=0.0, rivals=rivals, rival_weight=0.01)
        prior, _ = train_prior(data, recipe, schedule, tmp_path / str(rivals), device=CPU)
        rows = noised(prior, prior.encode(images), torch.Generator().manual_seed(1))
        with torch.no_grad():
            own, other = (
                denoising_errors(prior, rows, Condition(classes=torch.eye(10)[labels]), ("eps",), False)[0]
                for labels in (targets, (targets + 3) % 10)
            )
        losses.append(rival_loss(own, other, evidence_slope(prior)[rows.timesteps], 256).mean().item())
    assert losses[1] < 0.95 * losses[0]


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"times": "normal"}, "unknown times 'normal'"),
        ({"rivals": 0.5}, "give --soft-labels 0"),
        ({"rivals": 0.5, "maps": "depth"}, "leave --maps out"),
        ({"align": "embedded:digits", "align_block": 3}, "2 transformer blocks"),
    ],
)
def test_what_recipes_refuse(tmp_path, recipe, message):
    data = subset(load_dataset("embedded:digits/train"), 20, 0)
    with pytest.raises(UsageError, match=message):
        train_prior(data, PriorRecipe(**SMALL, **recipe), Regime(16, 16, 1e-3), tmp_path / "out", device=CPU)
