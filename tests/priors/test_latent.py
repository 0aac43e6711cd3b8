"""How an autoencoder's latents are scaled, against the formula of diffusers' pipelines."""

import pytest
import torch
from hub_checkpoints import autoencoder
from modern_checkpoints import representation_dit

from diffcern.errors import DiffcernError
from diffcern.priors import load_prior
from diffcern.priors.latent import Autoencoder

MEAN, STD = [0.5, -1.0, 2.0, 0.0], [1.5, 0.5, 2.0, 1.0]


@pytest.mark.parametrize(
    ("options", "shift", "scale"),
    [
        ({}, 0.0, 0.18215),
        ({"scaling_factor": 1.5305, "shift_factor": 0.0609}, 0.0609, 1.5305),  # Stable Diffusion 3
        # Playground 2.5, as StableDiffusionXLImg2ImgPipeline has it: (latents - mean) * scaling_factor / std
        (
            {"scaling_factor": 0.5, "latents_mean": MEAN, "latents_std": STD},
            torch.tensor(MEAN).view(4, 1, 1),
            0.5 / torch.tensor(STD).view(4, 1, 1),
        ),
        ({"latents_mean": MEAN}, 0.0, 0.18215),  # without the deviations diffusers leaves the means out
    ],
    ids=["scale", "shift", "moments", "half"],
)
@torch.no_grad()
def test_latents_are_shifted_and_scaled(options, shift, scale):
    torch.manual_seed(0)
    vae, images = autoencoder(**options).eval(), torch.rand(2, 3, 16, 16)
    wrapped = Autoencoder(vae, 8)
    latents = wrapped.encode(images)
    assert torch.allclose(latents, (vae.encode(2 * images - 1).latent_dist.mean - shift) * scale, atol=1e-5)
    decoded = (vae.decode(latents / scale + shift).sample / 2 + 0.5).clamp(0, 1)
    assert torch.allclose(wrapped.decode(latents), decoded, atol=1e-5)


def test_gradients_reach_through_an_autoencoder_and_move_none_of_its_weights():
    torch.manual_seed(0)
    wrapped, images = Autoencoder(autoencoder(), 8).eval().requires_grad_(False), torch.rand(1, 3, 16, 16)
    leaf = images.clone().requires_grad_()
    wrapped.decode(wrapped.encode(leaf)).square().sum().backward()
    assert leaf.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in wrapped.parameters())
    assert not wrapped.decode(wrapped.encode(images)).requires_grad


@pytest.mark.parametrize("encoder", ["dinov2", "mae"])  # diffusers 0.42.1 builds no siglip2 beside transformers 5
@torch.no_grad()
def test_representations_of_any_encoder(encoder, tmp_path):
    """No noise is added as in their training, whatever mode the network was left in; an image is what it was alone."""
    prior = load_prior(str(representation_dit(tmp_path / "rae", encoder)))
    images = torch.rand(2, 3, 30, 50)
    latents = prior.encode(images)
    assert latents.shape == (2, 64, 4, 4)
    assert torch.equal(prior.encode(images[1:]), latents[1:])
    assert torch.equal(prior.encode(images), latents)
    assert prior.decode(latents).shape == (2, 3, 16, 16)


def test_representations_of_another_model(tmp_path):
    folder = representation_dit(tmp_path / "rae")
    config = folder / "transformer" / "config.json"
    config.write_text(config.read_text().replace('"sample_size": 4', '"sample_size": 8'))
    with pytest.raises(DiffcernError, match=r"latents of 64 channels, 8 a side, .* some of 64 channels, 4 a side"):
        load_prior(str(folder))
