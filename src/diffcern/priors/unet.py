"""Pixel-space U-Nets: DDPM (Ho et al. 2020) as google/ddpm-cifar10-32, and ADM (Dhariwal & Nichol 2021)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from diffcern.errors import UsageError, unknown
from diffcern.labels import imagenet_labels
from diffcern.priors.base import Prior
from diffcern.priors.guided_diffusion import PUBLISHED, read_guided_diffusion
from diffcern.priors.latent import PUBLISHED_RESIZE, pixel_images, pixel_latents
from diffcern.priors.schedule import schedule_of
from diffcern.priors.sizes import side_of
from diffcern.priors.soft import class_weights, soften_labels
from diffcern.types import Condition


class UNetPrior(Prior):
    """A diffusers UNet2DModel on pixels, latent = 2 * resized image - 1; with or without classes.

    class_names: of a class-conditional network; its label table may end with a null class. Of a network that learned
    its variance too (ADM), the variance channels are split off.
    """

    pixels = True

    def __init__(self, unet: Any, scheduler: Any, class_names: tuple[str, ...] = ()) -> None:
        super().__init__()
        soften_labels(unet)
        self.denoiser = unet
        size = side_of(unet)
        self.latent_shape = (unet.config.in_channels, size, size)
        table = unet.class_embedding
        self.rows = 0 if table is None else table.weight.shape[0]
        self.class_names = class_names or tuple(str(k) for k in range(self.rows))
        self.set_schedule(schedule_of(scheduler))
        self.eval().requires_grad_(False)

    @classmethod
    def from_pipeline(cls, pipeline: Any, config: dict[str, Any]) -> UNetPrior:
        """From diffusers' DDPMPipeline (or another of a UNet2DModel and a scheduler)."""
        return cls(pipeline.unet, pipeline.scheduler)

    def encode(self, images: Tensor) -> Tensor:
        return pixel_latents(images, self.latent_shape[0], self.latent_shape[-1], PUBLISHED_RESIZE)

    def decode(self, latents: Tensor) -> Tensor:
        return pixel_images(latents)

    def denoise(self, x_t: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        x = x_t.to(self.dtype)
        if not self.rows:
            if condition.parts:
                raise UsageError("this prior is unconditional: it cannot tell classes apart; purification can use it")
            return self.denoiser(x, self.times[timesteps]).sample[:, : self.latent_shape[0]]
        weights = class_weights(condition, len(self.class_names), self.rows, x_t).to(x.dtype)
        return self.denoiser(x, self.times[timesteps], class_labels=weights).sample[:, : self.latent_shape[0]]


def guided_diffusion_prior(path: Path) -> UNetPrior:
    """ADM from an OpenAI guided-diffusion checkpoint, told apart by its published file name.

    Raises UsageError for another name, DiffcernError for a file that cannot be read.
    """
    if path.name not in PUBLISHED:
        raise unknown("guided-diffusion checkpoint", path.name, PUBLISHED)
    unet = read_guided_diffusion(path, **PUBLISHED[path.name])
    # Linear betas but for the 64-pixel model (published flags).
    curve = "squaredcos_cap_v2" if path.name.startswith("64x64") else "linear"
    count = unet.config.num_class_embeds
    names = imagenet_labels().names if count else ()
    from diffusers import DDPMScheduler

    return UNetPrior(unet, DDPMScheduler(beta_schedule=curve), names)
