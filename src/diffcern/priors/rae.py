"""Latents of a representation autoencoder (RAE, Zheng et al. 2025, arXiv 2510.11690): the features of a frozen image
encoder (DINOv2, SigLIP 2, MAE), normalised, which a transformer was trained to turn back into images.

diffusers 0.42.1 cannot build the one of SigLIP 2 beside transformers 5: its network has other names there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from diffcern.errors import DiffcernError
from diffcern.priors.latent import PUBLISHED_RESIZE, Autoencoder
from diffcern.resizing import interpolate


class RepresentationAutoencoder(nn.Module):
    """diffusers' `AutoencoderRAE`, frozen and in fp32, with the interface of `Autoencoder`.

    size: the side of the images that it decodes to, in pixels; its encoder brings them to a side of its own. Its
    normalisation and scale are its own too. Raises DiffcernError unless its latents are `[channels, side, side]`.
    """

    def __init__(self, vae: Any, channels: int, side: int) -> None:
        super().__init__()
        config = vae.config
        makes = (config.encoder_hidden_size, config.encoder_input_size // config.encoder_patch_size)
        if not config.reshape_to_2d or makes != (channels, side):
            raise DiffcernError(
                f"the prior's network reads latents of {channels} channels, {side} a side, and its autoencoder makes "
                f"{'some' if config.reshape_to_2d else 'sequences'} of {makes[0]} channels, {makes[1]} a side: the two "
                "belong to different models, restore the folder"
            )
        self.vae = vae.float()
        self.size: int = vae.decoder_image_size

    def encode(self, images: Tensor) -> Tensor:
        """`[B, 3, H, W]` in [0, 1], any size -> `[B, C, h, w]`, one image at a time, as of `Autoencoder`."""
        pixels = interpolate(images, (self.size, self.size), PUBLISHED_RESIZE)
        return torch.cat([self.vae.encode(image[None]).latent for image in pixels])

    def decode(self, latents: Tensor) -> Tensor:
        """Latents -> images `[B, 3, size, size]` in [0, 1]."""
        return torch.cat([self.vae.decode(one[None]).sample for one in latents.float()]).clamp(0, 1)


def autoencoder_of(vae: Any, channels: int, side: int) -> Autoencoder | RepresentationAutoencoder:
    """What makes latents `[channels, side, side]` with an autoencoder of diffusers. Raises DiffcernError as both."""
    if type(vae).__name__ == "AutoencoderRAE":  # which older versions of diffusers lack
        return RepresentationAutoencoder(vae, channels, side)
    return Autoencoder(vae, side)
