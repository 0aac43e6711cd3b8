"""The same properties for every family of priors, each loaded from a tiny checkpoint in the exact hub format."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from dataclasses import replace
from inspect import signature
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from caption_checkpoints import captioned
from diffusers import (
    ControlNetModel,
    DDPMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    PixArtTransformer2DModel,
)
from hub_checkpoints import CLASSES, controlled, ddpm, dit, sd3, sdxl, stable_diffusion, stable_diffusion_depth
from modern_checkpoints import flux, klein, latent_consistency, pixart, representation_dit, sana
from torch import nn
from transformers import AutoTokenizer, CLIPTextModel

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
    "rae": (representation_dit, "flow"),
    "sd": (stable_diffusion, "eps"),
    "sd-v": (lambda folder: stable_diffusion(folder, "v_prediction"), "v"),
    "sd-depth": (stable_diffusion_depth, "eps"),
    "sd-controlnet": (controlled, "eps"),
    "sdxl": (sdxl, "eps"),
    "sdxl-controlnet": (lambda folder: controlled(folder, xl=True), "eps"),
    "sd3": (sd3, "flow"),
    "sd3-t5": (lambda folder: sd3(folder, t5=True), "flow"),
    "ddpm": (ddpm, "eps"),
    "ddpm-classes": (lambda folder: ddpm(folder, classes=4), "eps"),  # three classes and none
    "captioned": (captioned, "x0"),
    "lcm": (latent_consistency, "eps"),
    "pixart": (pixart, "eps"),
    "pixart-sigma": (lambda folder: pixart(folder, sigma=True), "eps"),
    "sana": (sana, "flow"),
    "flux": (flux, "flow"),
    "flux-schnell": (lambda folder: flux(folder, guided=False), "flow"),
    "klein": (klein, "flow"),
}
MASKED = ("pixart", "pixart-sigma", "sana")  # their networks are told which tokens are padding


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


def reference(name, folder) -> DiffusionPipeline | SimpleNamespace:
    """diffusers' own pipeline from the same files, or the parts of one where no pipeline reads them."""
    if name == "captioned":
        network = PixArtTransformer2DModel.from_pretrained(Path(folder, "denoiser"))
        network.set_default_attn_processor()
        return SimpleNamespace(
            transformer=network.eval(),
            text_encoder=CLIPTextModel.from_pretrained(Path(folder, "text_encoder"), attn_implementation="eager"),
            tokenizer=AutoTokenizer.from_pretrained(Path(folder, "tokenizer")),
            scheduler=DDPMScheduler.from_pretrained(Path(folder, "scheduler")),
        )
    left_out = {"text_encoder_3": None, "tokenizer_3": None} if name == "sd3" else {}  # which the files lack
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
    if isinstance(scheduler, DPMSolverMultistepScheduler):  # adds the noise of the steps that it is set to, not of all
        flow, config = scheduler.config.prediction_type == "flow_prediction", scheduler.config
        scheduler = (
            FlowMatchEulerDiscreteScheduler(shift=config.flow_shift) if flow else DDPMScheduler.from_config(config)
        )
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


def text_of(name, pipeline) -> Condition:
    """The labels' prompts, embedded by diffusers' own pipeline."""
    prompts = [f"a photo of a {label}." for label in CLASSES]
    if name == "captioned":
        ids = pipeline.tokenizer(prompts, padding="max_length", return_tensors="pt").input_ids
        return Condition(tokens=pipeline.text_encoder(ids).last_hidden_state)
    if name in MASKED:
        instruction = signature(type(pipeline).__call__).parameters.get("complex_human_instruction")
        told = {} if instruction is None else {"complex_human_instruction": instruction.default}
        tokens, mask, *_ = pipeline.encode_prompt(prompts, do_classifier_free_guidance=False, device="cpu", **told)
        return Condition(tokens=tokens, mask=mask.float())
    if name == "klein":
        return Condition(tokens=pipeline.encode_prompt(prompts, device="cpu")[0])
    if name.startswith("flux"):
        tokens, pooled, _ = pipeline.encode_prompt(prompts, device="cpu")
        return Condition(tokens=tokens, pooled=pooled)
    encoded = pipeline.encode_prompt(
        prompt=prompts,
        device="cpu",
        num_images_per_prompt=1,
        do_classifier_free_guidance=False,
        **({"prompt_2": None, "prompt_3": None} if name.startswith("sd3") else {}),
    )
    return Condition(tokens=encoded[0], pooled=encoded[2] if len(encoded) > 2 else None)


def mixture_of(text: Condition, weights) -> Condition | SimpleNamespace:
    """The prompts in these shares, as diffusers' networks take them: with a mask, the shares of those that have a token
    at a place, and their attention's bias."""

    def mixed(rows):
        return torch.einsum("k,k...->...", weights, rows)

    if text.mask is None:
        return text.map(lambda rows: mixed(rows).expand_as(rows))
    share = mixed(text.mask)
    tokens = mixed(text.tokens * text.mask[..., None]) / share[:, None].clamp(min=1e-9)
    bias = share.clamp(min=1e-9).log().where(share > 0, torch.tensor(-10000.0))
    return SimpleNamespace(tokens=tokens.expand_as(text.tokens), mask=bias.expand(len(text), 1, -1))


def output_of(name, pipeline, x_t, times, text=None, labels=None):
    """What diffusers' own network says to prompts or to integer labels."""
    if name.startswith("sd3"):
        return pipeline.transformer(x_t, text.tokens, text.pooled, times).sample
    if name == "captioned":
        return pipeline.transformer(x_t, text.tokens, times).sample
    if name in MASKED:
        resolution = {"resolution": torch.full((len(x_t), 2), 16.0), "aspect_ratio": torch.ones(len(x_t), 1)}
        extra = {"added_cond_kwargs": resolution} if name == "pixart" else {}
        times = times * 0.7 if name == "sana" else times
        output = pipeline.transformer(
            x_t, text.tokens, timestep=times, encoder_attention_mask=text.mask, **extra
        ).sample
        return output[:, :4]
    if name == "klein":
        there, text_places = pipeline._prepare_latent_ids(x_t), pipeline._prepare_text_ids(text.tokens)
        packed = pipeline._pack_latents(x_t)
        output = pipeline.transformer(packed, text.tokens, times / 1000, there, text_places).sample
        return pipeline._unpack_latents_with_ids(output, there)
    if name.startswith("flux"):
        there = pipeline._prepare_latent_image_ids(1, 4, 4, "cpu", torch.float32)
        packed = pipeline._pack_latents(x_t, len(x_t), 4, 8, 8)
        strength = torch.full((len(x_t),), 3.5) if name == "flux" else None
        text_places = torch.zeros(text.tokens.shape[1], 3)
        output = pipeline.transformer(
            packed, text.tokens, text.pooled, times / 1000, there, text_places, strength
        ).sample
        return pipeline._unpack_latents(output, 16, 16, pipeline.vae_scale_factor)
    if name == "lcm":
        strength = pipeline.get_guidance_scale_embedding(torch.full((len(x_t),), 7.5), embedding_dim=8)
        return pipeline.unet(x_t, times, text.tokens, timestep_cond=strength).sample
    if text is not None:
        sizes = torch.tensor([[16.0, 16, 0, 0, 16, 16]] * len(x_t))
        added = {"text_embeds": text.pooled, "time_ids": sizes}
        extra = {} if text.pooled is None else {"added_cond_kwargs": added}
        x = torch.cat([x_t, torch.zeros_like(x_t[:, :1])], 1) if name == "sd-depth" else x_t
        return pipeline.unet(x, times, text.tokens, **extra).sample
    if name.startswith("ddpm"):
        return pipeline.unet(x_t, times, **({} if labels is None else {"class_labels": labels})).sample
    return pipeline.transformer(x_t, timestep=times, class_labels=labels).sample[:, : x_t.shape[1]]


@torch.no_grad()
def test_one_hot_is_the_label(family, batch):
    """A one-hot soft label gives exactly what diffusers' own model gives for the integer label or the prompt."""
    name, folder, prior = family
    x_t, t, _, _ = batch
    pipeline = reference(name, folder)
    text = text_of(name, pipeline) if isinstance(prior, TextPrior) else None
    expected = output_of(name, pipeline, x_t, prior.times[t], text, torch.arange(3) if prior.class_names else None)
    assert torch.equal(prior(x_t, t, labels(prior)).output, expected)


@torch.no_grad()
def test_a_soft_label_is_a_mixture(family, batch):
    """Of the prompts, token by token; of the rows of every block's label table."""
    name, folder, prior = family
    if not prior.class_names:
        return
    x_t, t, _, _ = batch
    pipeline, weights = reference(name, folder), torch.tensor([0.5, 0.2, 0.3])
    text = None
    if isinstance(prior, TextPrior):
        text = mixture_of(text_of(name, pipeline), weights)
    else:
        network = pipeline.unet if name.startswith("ddpm") else pipeline.transformer
        tables = [module.weight for module in network.modules() if isinstance(module, nn.Embedding)]
        assert len(tables) == (1 if name.startswith("ddpm") else 2)  # DiT has one in each of its two blocks
        for table in tables:
            table[0] = weights @ table[:3]
    expected = output_of(name, pipeline, x_t, prior.times[t], text, torch.zeros(3, dtype=torch.long))
    output = prior(x_t, t, Condition(classes=weights.expand(3, -1))).output
    assert torch.allclose(output, expected, atol=1e-5)  # sums in another order
    assert not torch.allclose(output, prior(x_t, t, labels(prior)).output, atol=1e-3)


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


def test_any_image_becomes_a_latent_and_back(family):
    name, _, prior = family
    images = torch.rand(2, 3, 37, 20)
    latents = prior.encode(images)
    assert latents.shape == (2, *prior.latent_shape)
    assert torch.equal(prior.encode(images[1:]), latents[1:])  # whatever the company
    decoded = prior.decode(latents)
    # klein's latents are patches, RAE's the features of patches
    side = prior.latent_shape[-1] * (1 if prior.pixels else 4 if name in ("klein", "rae") else 2)
    assert decoded.shape == (2, 3, side, side)
    assert decoded.min() >= 0
    assert decoded.max() <= 1


@torch.no_grad()
def test_latents_are_scaled_as_in_training(family):
    """(mean of the posterior - shift) * scaling factor of diffusers' own autoencoder; without a posterior, what it
    encodes to; without an autoencoder, pixels."""
    name, folder, prior = family
    side = prior.decode(torch.zeros(1, *prior.latent_shape)).shape[-1]
    images = torch.rand(1, 3, side, side)
    if prior.pixels:
        assert torch.equal(prior.encode(images), 2 * images - 1)
        assert torch.allclose(prior.decode(2 * images - 1), images, atol=1e-6)
        return
    if name == "klein":
        pipeline = reference(name, folder)
        expected = pipeline._encode_vae_image(2 * images - 1, None)
        assert torch.allclose(prior.encode(images), expected, atol=1e-6)
        mean, deviation = pipeline.vae.bn.running_mean, (pipeline.vae.bn.running_var + 1e-4).sqrt()
        latents = pipeline._unpatchify_latents(expected * deviation.view(1, -1, 1, 1) + mean.view(1, -1, 1, 1))
        decoded = (pipeline.vae.decode(latents).sample / 2 + 0.5).clamp(0, 1)
        assert torch.allclose(prior.decode(expected), decoded, atol=1e-5)
        return
    vae = reference(name, folder).vae
    if name == "rae":  # normalises and scales by itself, and takes images in [0, 1]
        expected = vae.encode(images).latent
        tokens = vae.encoder(vae._resize_and_normalize(images)).last_hidden_state[:, 5:]  # one class, four registers
        assert torch.allclose(expected[0].flatten(1).T, (tokens[0] - 0.2) / 1.50001 * 0.9, atol=1e-5)
        assert torch.allclose(prior.encode(images), expected, atol=1e-6)
        assert torch.allclose(prior.decode(expected), vae.decode(expected).sample.clamp(0, 1), atol=1e-5)
        return
    shift = {"sd3": 0.06, "sd3-t5": 0.06, "flux": 0.1159, "flux-schnell": 0.1159}.get(name, 0.0)
    scale = 0.41407 if name == "sana" else 0.18215
    encoded = vae.encode(2 * images - 1)
    expected = ((encoded.latent if name == "sana" else encoded.latent_dist.mean) - shift) * scale
    assert torch.allclose(prior.encode(images), expected, atol=1e-6)
    decoded = (vae.decode(expected / scale + shift).sample / 2 + 0.5).clamp(0, 1)
    assert torch.allclose(prior.decode(expected), decoded, atol=1e-5)


def test_everything_is_on_the_priors_device(prior, batch, monkeypatch):
    """The meta device computes nothing, and refuses tensors of another device all the same."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # which it does not know
    there = copy.deepcopy(prior).to("meta")
    x_t, t, z, noise = (value.to("meta") for value in batch)
    for condition in (labels(there), Condition()):
        assert there(x_t, t, condition).eps.device.type == "meta"
    assert there.add_noise(z, t, noise).device.type == "meta"
    assert there.decode(there.encode(torch.rand(1, 3, 9, 9, device="meta"))).device.type == "meta"


def test_half_precision_keeps_schedule_and_autoencoder(family, batch):
    name, _, prior = family
    x_t, t, _, _ = batch
    if name.startswith(("flux", "klein")):  # hear time and guidance in their own precision: such as bfloat16 knows
        prior, t = copy.copy(prior), torch.tensor([124, 249, 499])
        prior.guidance = 4.0 if name == "flux" else None
    half = copy.deepcopy(prior)
    half.denoiser.to(torch.bfloat16)
    denoised = half(x_t, t, labels(half))
    assert denoised.output.dtype == torch.bfloat16
    assert denoised.eps.dtype == torch.float32
    assert torch.equal(half.alphas, prior.alphas)
    full = prior(x_t, t, labels(prior)).output
    assert torch.nn.functional.cosine_similarity(denoised.output.float().flatten(), full.flatten(), 0) > 0.999


@pytest.mark.parametrize(("dtype", "cosine"), [(torch.bfloat16, 0.9), (torch.float16, 0.98)])  # 8 and 11 bits
def test_half_precision_keeps_the_gradient(prior, dtype, cosine):
    """Late times under the eps weighting too, where it is too small for float16."""
    if not prior.class_names:
        return
    torch.manual_seed(2)
    z, condition = torch.randn(1, *prior.latent_shape), Condition(classes=torch.full((1, 3), 1 / 3))
    draws = Draws(torch.tensor([[20, 500, 900, 980]]), torch.randn(1, 4, *prior.latent_shape))
    half = copy.deepcopy(prior)
    half.denoiser.to(dtype)
    full, other = (condition_gradient(p, z, condition, draws).per_draw.classes[0] for p in (prior, half))
    assert other.dtype == torch.float32
    assert (nn.functional.cosine_similarity(other, full) > cosine).all()


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
