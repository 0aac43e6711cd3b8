"""Images to the latents of an autoencoder and back: latent = (mean of the VAE's posterior - shift) * scale.

A deterministic autoencoder (DC-AE, Chen et al. 2024, arXiv 2410.10733) has the latent itself in the posterior's place.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from diffcern.errors import DiffcernError
from diffcern.priors.sizes import downsampling
from diffcern.resizing import interpolate

KINDS = ("AutoencoderKL", "AutoencoderDC")  # of diffusers
PUBLISHED_RESIZE = "bicubic"  # of the images that published priors were trained on; for our own it is bilinear


def to_square(images: Tensor, size: int, interpolation: str = "bilinear") -> Tensor:
    """Images `[B, 3, H, W]` in [0, 1], resized to size x size (antialiased), in [-1, 1]."""
    return 2 * interpolate(images, (size, size), interpolation) - 1


def pixel_latents(images: Tensor, channels: int, size: int, interpolation: str = "bilinear") -> Tensor:
    """The latents of a pixel-space prior, `[B, channels, size, size]`: the images themselves, averaged where grey."""
    latents = to_square(images, size, interpolation)
    return latents.mean(1, keepdim=True) if channels == 1 else latents


def pixel_images(latents: Tensor) -> Tensor:
    """Back to images `[B, 3, size, size]` in [0, 1]."""
    return ((latents.float() + 1) / 2).clamp(0, 1).expand(-1, 3, -1, -1)


class Autoencoder(nn.Module):
    """A frozen diffusers VAE, kept in fp32 whatever the denoiser runs in (SDXL's overflows in half precision).

    latent_size: side of the latents that the prior was trained on; size: the side of its images, in pixels. shift,
    scale: a number for each channel of the latents. Raises DiffcernError for an autoencoder of another kind.
    """

    def __init__(self, vae: Any, latent_size: int) -> None:
        super().__init__()
        if type(vae).__name__ not in KINDS:
            raise DiffcernError(
                f"the prior's vae is a {type(vae).__name__}; latents are read from an {' or '.join(KINDS)}"
            )
        config = vae.config
        self.vae = vae.float()
        self.size = latent_size * downsampling(config)
        mean, std = config.get("latents_mean"), config.get("latents_std")
        if mean is None or std is None:  # both or neither, as diffusers' pipelines have it
            mean = [config.get("shift_factor") or 0.0] * config.latent_channels
            std = [1.0] * config.latent_channels
        numbers = [*mean, *std, config.scaling_factor]
        if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers) or (
            not len(mean) == len(std) == config.latent_channels or 0 in std or not config.scaling_factor
        ):
            raise DiffcernError(
                f"the prior's vae shifts its latents by {mean} and scales them by {config.scaling_factor} over {std}: "
                f"these are finite numbers, for each of {config.latent_channels} channels; restore its config.json"
            )
        self.shift = tuple(mean)
        self.scale = tuple(config.scaling_factor / deviation for deviation in std)

    def encode(self, images: Tensor) -> Tensor:
        """`[B, 3, H, W]` in [0, 1], any size -> `[B, C, size/f, size/f]`, without sampling, one image at a time.

        One at a time, so that the latent of an image does not depend on its company by so much as a rounding.
        """
        pixels = to_square(images, self.size, PUBLISHED_RESIZE)
        means = torch.cat([_mean(self.vae.encode(image[None])) for image in pixels])
        return (means - self._like(means, self.shift)) * self._like(means, self.scale)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents -> images `[B, 3, size, size]` in [0, 1]."""
        z = latents.float() / self._like(latents, self.scale) + self._like(latents, self.shift)
        return ((torch.cat([self.vae.decode(one[None]).sample for one in z]) + 1) / 2).clamp(0, 1)

    @staticmethod
    def _like(latents: Tensor, values: tuple[float, ...]) -> Tensor:
        return torch.tensor(values, device=latents.device).view(-1, 1, 1)


def _mean(encoded: Any) -> Tensor:
    """Of what an autoencoder of diffusers makes of images: of a posterior, or of no more than a point."""
    latents: Tensor = encoded.latent_dist.mean if hasattr(encoded, "latent_dist") else encoded.latent
    return latents
