"""Parts of denoisers: compiled where they repeat, cut out of the backward pass."""

import shutil

import hub_checkpoints
import pytest
import torch

from diffcern.draws import draw
from diffcern.errors import UsageError
from diffcern.likelihood import condition_gradient, score
from diffcern.methods.base import frozen_view
from diffcern.methods.diffusion_tta import DiffusionTTA
from diffcern.predictors import load_predictor
from diffcern.priors import load_prior
from diffcern.priors.blocks import blocks_of, compile_regions, cut_backward
from diffcern.priors.native import NativeConfig, native_prior
from diffcern.tasks import TASKS, Classification
from diffcern.types import Condition, Inputs

IDS = ["a", "b"]


def gradients(prior, cut):
    view = frozen_view(prior)
    cut_backward(view.denoiser, cut)
    latents = torch.randn(2, *prior.latent_shape, generator=torch.Generator().manual_seed(0))
    draws = draw("stratified", 8, latents, IDS, seed=0, num_timesteps=prior.num_timesteps)
    even = torch.full((2, len(prior.class_names)), 1 / len(prior.class_names))
    found = condition_gradient(view, latents, Condition(classes=even), draws, weighting="x0")
    return found.losses, found.gradient.classes - found.gradient.classes.mean(1, keepdim=True)


def test_a_cut_changes_no_loss_and_little_of_the_gradient():
    prior = load_prior("embedded:digits")
    whole, quarter, half = (gradients(prior, share) for share in (0.0, 0.25, 0.5))
    assert torch.equal(whole[0], quarter[0])
    cosine = [torch.cosine_similarity(whole[1], other[1]) for other in (quarter, half)]
    assert (cosine[0] > 0.7).all()
    assert (cosine[0] > cosine[1]).all()
    assert torch.equal(gradients(prior, 0.0)[1], whole[1])  # the prior itself was not changed
    assert torch.equal(gradients(prior, 0.01)[1], quarter[1])  # one block at least
    assert gradients(prior, 0.99)[1].any()  # and never all


@pytest.mark.parametrize("name", ["dit", "unet"])
def test_nothing_is_differentiated_before_the_condition_enters(name, tmp_path):
    """What the condition has not reached has no graph: no backward pass goes there."""
    shipped = name == "dit"
    folder = "embedded:digits" if shipped else str(hub_checkpoints.stable_diffusion(tmp_path / "sd"))
    prior = frozen_view(load_prior(folder, labels=None if shipped else ["a", "b"]))
    network, seen = prior.denoiser, dict[str, bool]()
    entry = network.pos_embed if shipped else network.conv_in
    last = network.transformer_blocks[-1] if shipped else network.conv_out
    entry.register_forward_hook(lambda module, given, output: seen.update(entry=output.requires_grad))
    last.register_forward_hook(lambda module, given, output: seen.update(last=output.requires_grad))
    latents = torch.randn(2, *prior.latent_shape)
    draws = draw("stratified", 2, latents, IDS, seed=0, num_timesteps=prior.num_timesteps)
    even = Condition(classes=torch.full((2, len(prior.hypotheses())), 1 / len(prior.hypotheses())))
    condition_gradient(prior, latents, even, draws)
    assert seen == {"entry": False, "last": True}


def test_blocks_of_every_kind(tmp_path):
    assert len(blocks_of(load_prior("embedded:digits").denoiser)) == 4
    unet = load_prior(str(hub_checkpoints.stable_diffusion(tmp_path / "sd")), labels=["a", "b"]).denoiser
    assert blocks_of(unet) == [*unet.down_blocks, unet.mid_block, *unet.up_blocks]


@pytest.mark.slow
def test_what_repeats_is_compiled_and_nothing_else(tmp_path):
    for denoiser, count in (
        (load_prior("embedded:digits").denoiser, 4),
        (load_prior(str(hub_checkpoints.stable_diffusion(tmp_path / "sd")), labels=["a", "b"]).denoiser, None),
    ):
        compile_regions(denoiser)
        compiled = [module for module in denoiser.modules() if module._compiled_call_impl is not None]
        assert len({type(module) for module in compiled}) == 1
        assert count in (None, len(compiled))
        assert denoiser not in compiled
    plain = torch.nn.Sequential(torch.nn.Linear(2, 2))
    compile_regions(plain)
    assert plain._compiled_call_impl is not None


def test_a_view_of_a_compiled_prior_is_compiled(prior):
    shipped = load_prior("embedded:digits")
    compile_regions(shipped.denoiser)
    view = frozen_view(shipped)
    assert [m._compiled_call_impl is not None for m in view.modules()].count(True) == 4


def test_feedback_with_a_cut(inputs, prior):
    predictor, shipped = load_predictor("embedded:digits"), load_prior("embedded:digits")
    task = Classification(predictor.class_names, shipped.class_names)
    seen = Inputs(torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)), IDS)
    options = {"steps": 2, "draws": 8, "weighting": "x0", "optimizer": "sgd", "adapt_prior": False}
    outputs = []
    for cut in (0.0, 0.25):
        method = DiffusionTTA(predictor, shipped, task, learning_rate=0.05, cut=cut, **options)
        outputs.append(method.step(method.init(), seen, 0)[0].output)
    assert not torch.equal(*outputs)
    assert torch.allclose(*outputs, atol=1.0)
    with pytest.raises(UsageError, match="set adapt_prior=false, or cut=0"):
        DiffusionTTA(predictor, shipped, task, **{**options, "adapt_prior": True}, cut=0.25)
    with pytest.raises(UsageError, match="from 0 to below 1, not 1"):
        DiffusionTTA(predictor, shipped, task, **options, cut=1.0)
    segmenting = load_predictor("embedded:scenes-segmentation"), load_prior("embedded:scenes-segmentation")
    with pytest.raises(UsageError, match="maps enter a prior before its first block"):
        DiffusionTTA(*segmenting, TASKS["segmentation"].joining(*segmenting), **options, cut=0.25)
    with pytest.raises(UsageError, match="no blocks to cut"):
        DiffusionTTA(predictor, prior, Classification(prior.class_names, prior.class_names), **options, cut=0.5)


@pytest.mark.slow
def test_a_compiled_block_answers_the_same():
    prior = load_prior("embedded:digits")
    latents = torch.randn(1, *prior.latent_shape, generator=torch.Generator().manual_seed(0))
    draws = draw("stratified", 2, latents, ["a"], seed=0, num_timesteps=prior.num_timesteps)
    plain = score(prior, latents, prior.hypotheses(), draws).errors
    compile_regions(prior.denoiser)
    for module in prior.denoiser.transformer_blocks:  # what is compiled, without the compiler of C++
        module.compile(backend="eager")
    assert torch.allclose(score(prior, latents, prior.hypotheses(), draws).errors, plain, atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a C++ compiler")
def test_a_compiled_gradient_in_bfloat16_is_the_eager_one():
    """Of tokens that are cut from an image; it was NaN on CPUs with AVX-512."""
    torch.manual_seed(0)
    prior = native_prior(NativeConfig("dit", "eps", 32, 3, ("a", "b")), width=288, depth=1, heads=6, patch=4)
    for parameter in prior.parameters():  # adaLN-Zero starts silent
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    prior.requires_grad_(False).bfloat16()
    latents, told = torch.randn(32, *prior.latent_shape), Condition(classes=torch.tensor([[0.5, 0.5]] * 32))
    ids = [str(row) for row in range(32)]
    draws = draw("stratified", 1, latents, ids, seed=0, num_timesteps=prior.num_timesteps)
    eager = condition_gradient(prior, latents, told, draws).gradient.classes
    compile_regions(prior.denoiser)
    compiled = condition_gradient(prior, latents, told, draws).gradient.classes
    assert torch.allclose(compiled, eager, rtol=0.1, atol=0.05 * eager.abs().max().item())
