"""What the preset "paper" of Diffusion-TTA moves: with DiT and with maps the prior too, with prompts not."""

import pytest
import torch
from hub_checkpoints import CLASSES, dit, stable_diffusion
from torch import nn

from diffcern.errors import UsageError
from diffcern.labels import vocabulary_of
from diffcern.methods import build_method
from diffcern.methods.presets import preset_options
from diffcern.predictors import Predictor
from diffcern.priors import load_prior
from diffcern.priors.native import NativeConfig, native_prior
from diffcern.priors.spatial import Maps
from diffcern.tasks import Classification, task_of
from diffcern.types import Inputs

FEW = {"steps": 1, "draws": 2}


def classifier(names):
    torch.manual_seed(0)
    return Predictor(nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, len(names))), names)


def with_prompts(folder):
    prior = load_prior(str(stable_diffusion(folder)))
    prior.with_labels(vocabulary_of(CLASSES, None))
    return classifier(CLASSES), prior


def with_classes(folder):
    prior = load_prior(str(dit(folder)))
    return classifier(prior.class_names), prior


def with_maps(folder):
    torch.manual_seed(0)
    names = ("sky", "road")
    config = NativeConfig("dit", "x0", 16, 3, (), Maps("segmentation", names))
    prior = native_prior(config, width=16, depth=1, heads=2, patch=8)
    return Predictor(nn.Conv2d(3, 2, 1), names, task="segmentation"), prior


PUBLISHED = {  # METHODS: optimiser, rate, whether the prior moves
    with_classes: (torch.optim.Adam, 1e-5, True),
    with_prompts: (torch.optim.SGD, 5e-3, False),
    with_maps: (torch.optim.AdamW, 8e-5, True),
}


@pytest.mark.parametrize("models", PUBLISHED)
def test_what_moves_and_how(models, tmp_path):
    predictor, prior = models(tmp_path / "prior")
    optimizer, rate, moves = PUBLISHED[models]
    options = {**preset_options("diffusion-tta", "paper", predictor.task), **FEW}
    method = build_method("diffusion-tta", predictor, prior, task_of(predictor, prior), options)
    start = method.init()
    _, used = method.optimizer.start(start.predictor)
    assert type(used) is optimizer
    assert used.param_groups[0]["lr"] == rate
    _, after = method.step(start, Inputs(torch.rand(1, 3, 16, 16), ["a"]), 0)
    assert (after.prior is not None) == moves
    if moves:
        moved = [not torch.equal(value, start.prior.parameters[name]) for name, value in after.prior.parameters.items()]
        assert all(name.startswith("denoiser.") for name in after.prior.parameters)
        assert any(moved)
        assert method.prior_optimizer == method.optimizer  # the same, and the same rate


@pytest.mark.parametrize("models", PUBLISHED)
def test_the_small_preset_leaves_the_prior_alone(models, tmp_path):
    predictor, prior = models(tmp_path / "prior")
    options = {**preset_options("diffusion-tta", "small", predictor.task), **FEW}
    assert build_method("diffusion-tta", predictor, prior, task_of(predictor, prior), options).init().prior is None


def test_a_rate_belongs_to_its_optimizer(tmp_path):
    predictor, prior = with_classes(tmp_path / "prior")
    task = Classification(predictor.class_names, prior.class_names)
    assert build_method("diffusion-tta", predictor, prior, task, {"optimizer": "sgd"}).optimizer.learning_rate == 5e-3


def test_half_precision_and_gates_want_it_said(tmp_path):
    predictor, prior = with_classes(tmp_path / "prior")
    task = Classification(predictor.class_names, prior.class_names)
    with pytest.raises(UsageError, match="set adapt_prior=false"):
        build_method("diffusion-tta", predictor, prior, task, {"gate": 1.5})
    prior.denoiser.bfloat16()
    with pytest.raises(UsageError, match="give dtype float32, or set adapt_prior=false"):
        build_method("diffusion-tta", predictor, prior, task, {})
    build_method("diffusion-tta", predictor, prior, task, {"gate": 1.5, "adapt_prior": False})


def test_an_exact_prior_has_nothing_to_move(predictor, prior, task):
    assert build_method("diffusion-tta", predictor, prior, task, {}).init().prior is None
