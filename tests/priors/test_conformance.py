"""The same properties for every family of priors, each loaded from a tiny checkpoint in the exact hub format."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from diffusers import ControlNetModel, DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from hub_checkpoints import CLASSES, controlled, ddpm, dit, sd3, sdxl, stable_diffusion, stable_diffusion_depth
from torch import nn

from diffcern.draws import Draws, draw
from diffcern.errors import UsageError
from diffcern.labels import vocabulary_of
from diffcern.likelihood import condition_gradient, score
from diffcern.methods import build_method
from diffcern.predictors import Predictor
from diffcern.priors import load_prior
from diffcern.priors.text import TextPrior
from diffcern.tasks import Classification
from diffcern.types import Condition, Inputs

FAMILIES = {
    "dit": (dit, "eps"),
    "sit": (lambda folder: dit(folder, flow=True), "flow"),
    "sd": (stable_diffusion, "eps"),
    "sd-v": (lambda folder: stable_diffusion(folder, "v_prediction"), "v"),
    "sd-depth": (stable_diffusion_depth, "eps"),
    "sd-controlnet": (controlled, "eps"),
    "sdxl": (sdxl, "eps"),
    "sdxl-controlnet": (lambda folder: controlled(folder, xl=True), "eps"),
    "sd3": (sd3, "flow"),
    "ddpm": (ddpm, "eps"),
    "ddpm-classes": (lambda folder: ddpm(folder, classes=4), "eps"),  # three classes and none
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    """(name, folder, the loaded prior with its labels)."""
    torch.manual_seed(0)
    folder = FAMILIES[request.param][0](tmp_path_factory.mktemp("hub") / request.param)
    prior = load_prior(str(folder))
    folder = str(folder).partition("+")[0]
    if isinstance(prior, TextPrior):
        prior.with_labels(vocabulary_of(CLASSES, None))
    if request.param == "ddpm-classes":
        prior.class_names = CLASSES
    return request.param, folder, prior


def reference(name, folder) -> DiffusionPipeline:
    """diffusers' own pipeline from the same files."""
    left_out = {"text_encoder_3": None, "tokenizer_3": None} if name == "sd3" else {}
    return DiffusionPipeline.from_pretrained(folder, **left_out)


@pytest.fixture
def prior(family):
    return family[2]


@pytest.fixture
def batch(prior):
    """Noisy latents [3, ...] at three times."""
    torch.manual_seed(1)
    z, noise, t = torch.randn(3, *prior.latent_shape), torch.randn(3, *prior.latent_shape), torch.tensor([9, 400, 950])
    return prior.add_noise(z, t, noise), t, z, noise


def labels(prior) -> Condition:
    return prior.hypotheses() if prior.class_names else Condition()


def test_the_kind_is_the_checkpoints(family):
    assert family[2].kind == FAMILIES[family[0]][1]


def test_views_agree(prior, batch):
    """alpha x0 + sigma eps is x_t whichever of the two was predicted, and a perfect output gives back both."""
    x_t, t, z, noise = batch
    denoised = prior(x_t, t, labels(prior))
    assert torch.allclose(denoised.alpha * denoised.x0 + denoised.sigma * denoised.eps, x_t, atol=2e-4)
    perfect = denoised.__class__(denoised.target(z, noise), prior.kind, x_t, denoised.alpha, denoised.sigma)
    assert torch.allclose(perfect.eps, noise, atol=2e-4)
    assert torch.allclose(perfect.alpha * perfect.x0, perfect.alpha * z, atol=2e-4)


def test_noise_is_added_as_in_training(family, batch):
    """As the family's own scheduler adds it, over the whole schedule."""
    name, folder, prior = family
    scheduler = reference(name, folder).scheduler
    _, _, z, noise = batch
    z, noise = z[:1].expand(1000, -1, -1, -1), noise[:1].expand(1000, -1, -1, -1)
    t = torch.arange(1000)
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        expected = scheduler.scale_noise(z, scheduler.timesteps.flip(0), noise)
        assert torch.allclose(prior.times, scheduler.timesteps.flip(0), rtol=1e-6)
    else:
        expected = scheduler.add_noise(z, noise, t)
    assert torch.allclose(prior.add_noise(z, t, noise), expected, atol=1e-5)


def test_variance_is_preserved_or_interpolated(prior):
    if prior.kind == "flow":
        assert torch.allclose(prior.alphas + prior.sigmas, torch.ones(1000), atol=1e-6)
    else:
        assert torch.allclose(prior.alphas**2 + prior.sigmas**2, torch.ones(1000), atol=1e-6)
    assert (prior.sigmas.diff() > 0).all()


def test_one_hot_is_the_label(family, batch):
    """A one-hot soft label gives exactly what diffusers' own model gives for the integer label or the prompt."""
    name, folder, prior = family
    x_t, t, _, _ = batch
    pipeline = reference(name, folder)
    times, integers = prior.times[t], torch.arange(3)
    with torch.no_grad():
        if isinstance(prior, TextPrior):
            encoded = pipeline.encode_prompt(
                prompt=[f"a photo of a {label}." for label in CLASSES],
                device="cpu",
                num_images_per_prompt=1,
                do_classifier_free_guidance=False,
                **({"prompt_2": None, "prompt_3": None} if name == "sd3" else {}),
            )
            if name == "sd3":
                expected = pipeline.transformer(x_t, encoded[0], encoded[2], times).sample
            else:
                added = {"text_embeds": encoded[-2], "time_ids": torch.tensor([[16.0, 16, 0, 0, 16, 16]] * 3)}
                extra = {"added_cond_kwargs": added} if name.startswith("sdxl") else {}
                x = torch.cat([x_t, torch.zeros_like(x_t[:, :1])], 1) if name == "sd-depth" else x_t
                expected = pipeline.unet(x, times, encoded[0], **extra).sample
        elif name.startswith("ddpm"):
            extra = {"class_labels": integers} if prior.class_names else {}
            expected = pipeline.unet(x_t, times, **extra).sample
        else:
            expected = pipeline.transformer(x_t, timestep=times, class_labels=integers).sample[:, :4]
        output = prior(x_t, t, labels(prior)).output
    assert torch.equal(output, expected)


def test_unconditional(family, batch):
    """The empty condition is the null class, the empty prompt (SDXL: zeros), or all that there is."""
    name, _, prior = family
    x_t, t, _, _ = batch
    with torch.no_grad():
        output = prior(x_t, t, Condition()).output
        if isinstance(prior, TextPrior):
            empty = prior.prompts([""] * 3)
            if name.startswith("sdxl"):
                empty = empty.map(torch.zeros_like)
            assert torch.allclose(output, prior(x_t, t, empty).output, atol=1e-5)
        elif prior.class_names:
            null = torch.nn.functional.one_hot(torch.tensor([3, 3, 3]), 4).float()
            assert torch.equal(output, prior(x_t, t, Condition(classes=null)).output)
        if prior.class_names:
            assert not torch.allclose(output, prior(x_t, t, labels(prior)).output, atol=1e-4)


def test_the_condition_has_a_gradient_and_the_weights_have_none(prior):
    if not prior.class_names:
        with pytest.raises(UsageError, match="unconditional"):
            prior(torch.randn(1, *prior.latent_shape), torch.tensor([3]), Condition(classes=torch.ones(1, 3) / 3))
        return
    z = torch.randn(2, *prior.latent_shape)
    draws = draw("stratified", 4, z, ["a", "b"], seed=0, num_timesteps=prior.num_timesteps)
    result = condition_gradient(prior, z, Condition(classes=torch.full((2, 3), 1 / 3)), draws)
    assert torch.isfinite(result.gradient.classes).all()
    assert (result.gradient.classes.abs().sum(1) > 0).all()
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in prior.parameters())
    assert score(prior, z, prior.hypotheses(), draws).errors.shape == (2, 3, 4)


def test_maps_reach_the_network_and_have_a_gradient(prior, batch):
    x_t, t, z, _ = batch
    if prior.spatial_shape is None:
        with pytest.raises(UsageError, match="takes no maps"):
            prior(x_t, t, Condition(spatial=z))
        return
    maps = torch.rand(3, *prior.spatial_shape)
    with torch.no_grad():
        plain, told = prior(x_t, t, labels(prior)), prior(x_t, t, replace(labels(prior), spatial=maps))
    assert not torch.allclose(plain.output, told.output, atol=1e-4)
    draws = draw("stratified", 2, z[:2], ["a", "b"], seed=0, num_timesteps=prior.num_timesteps)
    gradient = condition_gradient(prior, z[:2], replace(labels(prior)[:2], spatial=maps[:2]), draws).gradient
    assert torch.isfinite(gradient.spatial).all()
    assert (gradient.spatial.flatten(1).abs().sum(1) > 0).all()
    assert (gradient.classes.abs().sum(1) > 0).all()
    with pytest.raises(UsageError, match="takes maps of shape"):
        prior(x_t, t, Condition(spatial=maps[:, :, :3]))


def test_any_image_becomes_a_latent_and_back(prior):
    images = torch.rand(2, 3, 37, 20)
    latents = prior.encode(images)
    assert latents.shape == (2, *prior.latent_shape)
    assert torch.equal(prior.encode(images[1:]), latents[1:])  # whatever the company
    decoded = prior.decode(latents)
    assert decoded.shape[:2] == (2, 3)
    assert decoded.min() >= 0
    assert decoded.max() <= 1


def test_half_precision_keeps_schedule_and_autoencoder(prior, batch):
    half = copy.deepcopy(prior)
    half.denoiser.to(torch.bfloat16)
    x_t, t, _, _ = batch
    denoised = half(x_t, t, labels(half))
    assert denoised.output.dtype == torch.bfloat16
    assert denoised.eps.dtype == torch.float32
    assert torch.equal(half.alphas, prior.alphas)
    full = prior(x_t, t, labels(prior)).output
    assert torch.nn.functional.cosine_similarity(denoised.output.float().flatten(), full.flatten(), 0) > 0.999


@pytest.mark.parametrize("weighting", ["eps", "x0", "v", "flow", "min-snr", "exp-7t"])
def test_every_weighting_is_finite_at_both_ends(prior, weighting):
    """Flow matching ends at alpha = 0: weightings are infinite, their ratios to the network's own are not."""
    z = torch.randn(1, *prior.latent_shape)
    ends = Draws(torch.tensor([[0, prior.num_timesteps - 1]]), torch.randn(1, 2, *prior.latent_shape))
    if prior.class_names:
        assert torch.isfinite(score(prior, z, prior.hypotheses(), ends, weighting=weighting).errors).all()


@pytest.mark.parametrize("xl", [False, True], ids=["sd", "sdxl"])
def test_a_controlnet_is_diffusers_own(xl, tmp_path):
    """A prompt and a map give what the U-Net and the ControlNet of diffusers give."""
    base, _, control = controlled(tmp_path, xl).partition("+controlnet:")
    prior = load_prior(f"{base}+controlnet:{control}")
    pipeline, controlnet = DiffusionPipeline.from_pretrained(base), ControlNetModel.from_pretrained(control)
    text, maps = prior.prompts(["a photo of a cat"]), torch.rand(1, 3, 16, 16)
    x, t = torch.randn(1, *prior.latent_shape), torch.tensor([300])
    sizes = {"text_embeds": text.pooled, "time_ids": torch.tensor([[16.0, 16, 0, 0, 16, 16]])}
    extra = {"added_cond_kwargs": sizes} if xl else {}
    with torch.no_grad():
        down, middle = controlnet(x, t, text.tokens, maps, return_dict=False, **extra)
        extra |= {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
        expected = pipeline.unet(x, t, text.tokens, **extra).sample
        assert torch.equal(prior(x, t, replace(text, spatial=maps)).output, expected)


def test_the_prior_can_be_adapted_too(prior):
    """Its network, that is, and not the autoencoder around it."""
    if not prior.class_names:
        return
    predictor = Predictor(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3)), CLASSES)
    task = Classification(CLASSES, prior.class_names)
    options = {"steps": 1, "draws": 2, "adapt_prior": True, "optimizer": "sgd", "learning_rate": 0.1}
    method = build_method("diffusion-tta", predictor, prior, task, options)
    _, state = method.step(method.init(), Inputs(torch.rand(1, 3, 16, 16), ["a"]), 0)
    assert all(name.startswith("denoiser.") for name in state.prior.parameters)
