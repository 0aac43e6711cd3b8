"""Families that read text against diffusers' own pipelines as they sample: what the network is told, and its answer."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from diffusers import DiffusionPipeline
from hub_checkpoints import autoencoder, controlled, dit, stable_diffusion
from modern_checkpoints import compressing_autoencoder, flux, klein, latent_consistency, pixart, sana
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from diffcern.errors import DiffcernError, UsageError
from diffcern.fingerprints import fingerprint
from diffcern.priors import load_prior
from diffcern.priors.masks import masked, present_tokens
from diffcern.types import Condition

PROMPT = "A great white shark"
PLAIN = {"use_resolution_binning": False}  # which knows published sizes only
PIPELINES = {
    "pixart": (lambda folder: pixart(folder, side=128), PLAIN),  # at which diffusers tells alpha the size
    "pixart-sigma": (lambda folder: pixart(folder, sigma=True), PLAIN),
    "sana": (sana, PLAIN | {"height": 32, "width": 32}),
    "lcm": (latent_consistency, {"height": 16, "width": 16}),
    "flux": (flux, {"height": 16, "width": 16}),
    "klein": (klein, {"height": 32, "width": 32}),
}
TIMES = {"sana": 0.7, "flux": 0.001, "klein": 0.001}  # what the network hears, in those of the scheduler


def watched(network, seen):
    """Notes what each call of a network is given, and what it answers."""

    def note(_, arguments, named, output):
        seen.append((arguments, named, output[0] if isinstance(output, tuple) else output.sample))

    return network.register_forward_hook(note, with_kwargs=True)


def unpacked(name, value):
    """FLUX's sequences of patches as latents."""
    if value.ndim == 4:
        return value[:, :4]
    patches = value.transpose(1, 2).unflatten(2, [round(value.shape[1] ** 0.5)] * 2)
    return F.pixel_shuffle(patches, 2) if name == "flux" else patches


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize("guided", [False, True], ids=["the prompt", "the prompt and none"])
def test_the_network_answers_as_in_a_pipeline(name, guided, tmp_path):
    """At every step that diffusers' pipeline takes, with the unconditional form where it asks for both at once."""
    build, options = PIPELINES[name]
    torch.manual_seed(0)
    folder = str(build(tmp_path / name))
    prior, pipeline = load_prior(folder), DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    strength = 4.5 if guided else 1.0
    if getattr(prior, "guidance", None) is not None:
        prior.guidance = strength
    steps = []
    with watched(pipeline.unet if name == "lcm" else pipeline.transformer, steps):
        pipeline(prompt=PROMPT, num_inference_steps=2, guidance_scale=strength, output_type="latent", **options)
    asks_twice = guided and name == "klein"
    assert len(steps) == (4 if asks_twice else 2)
    for number, (arguments, named, output) in enumerate(steps):
        x = unpacked(name, arguments[0] if arguments else named["hidden_states"])
        told = prior.prompts(["", PROMPT] if len(x) == 2 else [PROMPT])
        told = Condition() if asks_twice and number % 2 else told
        time = (arguments[1] if len(arguments) > 1 else named["timestep"]).flatten()[:1] / TIMES.get(name, 1)
        place = (prior.times - time).abs().argmin()
        prior.times = prior.times.to(time.dtype).index_fill(0, place, time.item())  # steps of flows lie between our own
        answer = prior(x, place.expand(len(x)), told).output
        assert torch.allclose(answer, unpacked(name, output), atol=1e-5)
        if len(x) == 2:
            alone = [prior(x[row : row + 1], place[None], told[row : row + 1]).output for row in range(2)]
            assert torch.allclose(torch.cat(alone), answer, atol=1e-5)
            assert torch.allclose(prior(x[:1], place[None], Condition()).output, answer[:1], atol=1e-5)


def test_a_longer_prompt_than_the_network_reads(tmp_path):
    """T5's tokenizer knows no limit; the pipelines cut off what is behind theirs."""
    for build, limit in ((pixart, 120), (sana, 299), (flux, 77), (klein, 0)):
        prior = load_prior(str(build(tmp_path / build.__name__)))
        limit = limit or prior.encoder.limit
        assert torch.isfinite(prior.prompts(["a" * (limit - 2)]).tokens).all()
        with pytest.raises(UsageError, match=f"longer than the {limit} tokens"):
            prior.prompts(["a" * (limit + 1)])


def test_a_mask_is_what_attention_weighs():
    """In a mixture, a token counts by the share of the prompts that have it; a prompt alone is as it was."""
    tokens, mask = torch.randn(2, 3, 4), torch.tensor([[1, 1, 0], [1, 0, 0]])
    told = masked(tokens, mask)
    alone, bias = present_tokens(told[:1])
    assert torch.equal(alone[0, :2], tokens[0, :2])
    assert bias.tolist() == [[[0, 0, -10000]]]
    mixed = told.map(lambda rows: (rows * torch.tensor([0.25, 0.75]).view(2, *[1] * (rows.ndim - 1))).sum(0, True))
    seen, bias = present_tokens(mixed)
    assert torch.allclose(seen[0, 0], 0.25 * tokens[0, 0] + 0.75 * tokens[1, 0])
    assert torch.allclose(seen[0, 1], tokens[0, 1])
    weights = torch.softmax(bias[0, 0], 0)
    assert torch.allclose(weights, torch.tensor([0.8, 0.2, 0.0]))
    assert present_tokens(Condition(tokens=tokens))[1] is None


def test_a_mask_has_a_finite_gradient():
    """Also where a token is in no prompt, or hardly."""
    mask = torch.tensor([[1.0, 0.5, 1e-30, 0.0]], requires_grad=True)
    tokens, bias = present_tokens(Condition(tokens=torch.randn(1, 4, 2) * mask.detach()[..., None], mask=mask))
    (torch.softmax(bias, -1) @ tokens).sum().backward()
    assert torch.isfinite(mask.grad).all()
    assert mask.grad[0, 1] != 0


def test_guidance_is_told(tmp_path):
    """By name, else what the pipeline says; to the U-Net and not to a ControlNet."""
    folder = str(latent_consistency(tmp_path / "lcm"))
    usual, told = load_prior(folder), load_prior(f"{folder}+guidance:3")
    assert (usual.guidance, told.guidance) == (8.5, 3)
    assert fingerprint(usual) != fingerprint(told)
    x, t = torch.randn(2, *usual.latent_shape), torch.tensor([10, 600])
    assert not torch.allclose(usual(x, t, Condition()).output, told(x, t, Condition()).output, atol=1e-3)
    for odd in ("none", "0.5", "inf", "nan", ""):
        with pytest.raises(UsageError, match="must be a number from 1"):
            load_prior(f"{folder}+guidance:{odd}")
    with pytest.raises(UsageError, match="distilled networks that are told it"):
        load_prior(f"{stable_diffusion(tmp_path / 'sd')}+guidance:3")
    with pytest.raises(UsageError, match="is a DiTPipeline: leave it out"):
        load_prior(f"{dit(tmp_path / 'dit')}+guidance:3")


def test_a_distilled_network_beside_a_controlnet(tmp_path):
    folder = str(latent_consistency(tmp_path / "lcm"))
    control = controlled(tmp_path / "sd").partition("+controlnet:")[2]
    prior = load_prior(f"{folder}+guidance:3+controlnet:{control}")
    maps, x = torch.rand(1, 3, 16, 16), torch.randn(1, *prior.latent_shape)
    outputs = [prior(x, torch.tensor([500]), Condition(spatial=shown)).output for shown in (None, maps)]
    assert prior.guidance == 3
    assert not torch.allclose(*outputs, atol=1e-4)


@pytest.mark.parametrize(("build", "part"), [(pixart, "text_encoder"), (pixart, "tokenizer"), (flux, "text_encoder_2")])
def test_a_repository_without_a_text_encoder(build, part, tmp_path):
    """Which pipelines of PixArt may leave out."""
    folder = build(tmp_path / "prior")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {part: [None, None]}))
    with pytest.raises(DiffcernError, match=f"leaves out its {part}"):
        load_prior(str(folder))


def test_the_side_of_latents_in_patches(tmp_path):
    """What the autoencoder says of its images, else what the pipeline makes; an odd one is refused."""
    folder = flux(tmp_path / "flux")
    config = folder / "vae" / "config.json"
    known = json.loads(config.read_text())
    config.write_text(json.dumps({name: value for name, value in known.items() if name != "sample_size"}))
    assert load_prior(str(folder)).latent_shape == (4, 128, 128)
    config.write_text(json.dumps(known | {"sample_size": 18}))
    with pytest.raises(DiffcernError, match="9 a side, which no patches of 2"):
        load_prior(str(folder))


@pytest.mark.parametrize(
    ("build", "other"), [(pixart, autoencoder), (sana, compressing_autoencoder), (flux, autoencoder)]
)
def test_an_autoencoder_of_another_model(build, other, tmp_path):
    folder = build(tmp_path / "prior")
    shutil.rmtree(folder / "vae")
    other(latent_channels=8).save_pretrained(folder / "vae")
    with pytest.raises(DiffcernError, match=r"of (4|16) channels, and its autoencoder makes some of (8|32)"):
        load_prior(str(folder))


def test_a_repository_as_it_was_published(tmp_path):
    """PixArt-alpha's network was a Transformer2DModel then, with keys that no other has; T5 held its words twice."""
    folder = pixart(tmp_path / "pixart")
    expected = load_prior(str(folder))
    index, config = folder / "model_index.json", folder / "transformer" / "config.json"
    index.write_text(index.read_text().replace("PixArtTransformer2DModel", "Transformer2DModel"))
    older = {"_class_name": "Transformer2DModel", "_diffusers_version": "0.22.0.dev0", "double_self_attention": False}
    older |= {"num_vector_embeds": None, "only_cross_attention": False, "use_linear_projection": False}
    config.write_text(json.dumps(json.loads(config.read_text()) | older))
    words = folder / "text_encoder" / "model.safetensors"
    tensors = load_file(words)
    tensors["encoder.embed_tokens.weight"] = tensors["shared.weight"].clone()
    save_file(tensors, words, metadata={"format": "pt"})
    prior = load_prior(str(folder))
    x, t = torch.randn(1, *prior.latent_shape), torch.tensor([300])
    assert torch.equal(prior(x, t, Condition()).output, expected(x, t, Condition()).output)
