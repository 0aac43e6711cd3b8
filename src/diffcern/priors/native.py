"""Our own small priors: a DiT or a U-Net from diffusers, of pixels or features, under soft labels, maps or both.

Saved as a folder: `prior.json` (objective, label space, image size), `denoiser/` and `scheduler/` (diffusers'
own formats: JSON and safetensors), readable by diffusers itself, what is known of clean images (`priors/clean.py`), and
where the prior is one of features `autoencoder/` (`priors/features.py`).
Trained by `diffcern train prior`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DiTTransformer2DModel, UNet2DModel
from torch import Tensor, nn

from diffcern.configs import FORBID, Names, Side, read_config
from diffcern.errors import unknown
from diffcern.files import check_files, reading, write_whole
from diffcern.priors.base import Prior
from diffcern.priors.clean import read_clean, write_clean
from diffcern.priors.features import FeatureAutoencoder, read_autoencoder
from diffcern.priors.latent import pixel_images, pixel_latents
from diffcern.priors.own import (
    SCHEDULER,
    TRAINS,
    WEIGHTS,
    Channels,
    Kind,
    Scheduler,
    new_schedule,
    plain_attention,
    read_denoiser,
    read_schedule,
)
from diffcern.priors.schedule import schedule_of
from diffcern.priors.shapes import (
    DiTShape,
    Shape,
    UNetShape,
    check_agreement,
    read_shape,
)
from diffcern.priors.soft import class_weights, soften_labels
from diffcern.priors.spatial import Maps, with_maps
from diffcern.types import Condition
from diffcern.weights import write_weights

ARCHITECTURES = {"dit": DiTTransformer2DModel, "unet": UNet2DModel}
SHAPES: dict[str, type[Shape]] = {"dit": DiTShape, "unet": UNetShape}
AUTOENCODER = "autoencoder"  # its folder in the prior's
FILES = ("prior.json", "denoiser/config.json", f"denoiser/{WEIGHTS}", SCHEDULER)


@dataclass(frozen=True)
class NativeConfig:
    """What `prior.json` holds.

    channels: 1 for grey priors (images are averaged over their channels); maps: what is concatenated to the image as a
    condition, None for nothing; features: whether latents are those of `autoencoder/`, or pixels.
    """

    __pydantic_config__ = FORBID

    architecture: str
    kind: Kind
    image_size: Side
    channels: Channels
    class_names: Names
    maps: Maps | None = None
    features: bool = False

    @property
    def map_channels(self) -> int:
        return self.maps.channels if self.maps else 0


class NativePrior(Prior):
    """latent = 2 * resized image - 1, or an autoencoder's.

    Conditions are `[B, K]`, or `[B, K + 1]` with the weight of the null class last (as training drops labels).
    """

    pixels = True

    def __init__(
        self,
        config: NativeConfig,
        denoiser: nn.Module,
        scheduler: Scheduler,
        autoencoder: FeatureAutoencoder | None = None,
    ) -> None:
        super().__init__()
        soften_labels(denoiser)
        plain_attention(denoiser)
        self.config = config
        self.denoiser = denoiser
        self.scheduler = scheduler
        self.class_names = tuple(config.class_names)
        self.autoencoder = autoencoder
        if autoencoder:
            self.pixels = False
        self.latent_shape = latent_shape(config, autoencoder)
        self.maps = config.maps
        if config.maps:
            self.spatial_shape = (config.map_channels, config.image_size, config.image_size)
        self.set_schedule(schedule_of(scheduler))
        self.eval().requires_grad_(False)

    def encode(self, images: Tensor) -> Tensor:
        if self.autoencoder:
            return self.autoencoder.encode(images)
        return pixel_latents(images, self.config.channels, self.config.image_size)

    def decode(self, latents: Tensor) -> Tensor:
        return self.autoencoder.decode(latents) if self.autoencoder else pixel_images(latents)

    def denoise(self, x_t: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        count = len(self.class_names)
        weights = class_weights(condition, count, count + 1, x_t)
        x = with_maps(x_t.to(self.dtype), condition, self.config.map_channels)
        return self.denoiser(x, timestep=self.times[timesteps], class_labels=weights.to(self.dtype)).sample

    def save_pretrained(self, folder: Path, dtype: torch.dtype = torch.float16) -> None:
        """Writes the folder this module's docstring describes; weights in `dtype`."""
        folder.mkdir(parents=True, exist_ok=True)
        architecture = ARCHITECTURES[self.config.architecture]
        copy = architecture.from_config(self.denoiser.config)
        copy.load_state_dict(self.denoiser.state_dict())
        copy.save_config(folder / "denoiser")
        write_weights(copy.state_dict(), folder / "denoiser" / WEIGHTS, dtype)
        self.scheduler.save_pretrained(folder / "scheduler")
        write_whole(folder / "prior.json", (json.dumps(asdict(self.config), indent=1) + "\n").encode())
        if self.autoencoder:
            self.autoencoder.save(folder / AUTOENCODER)
        write_clean(self, folder)

    @classmethod
    def from_pretrained(cls, folder: Path) -> NativePrior:
        """Reads such a folder (safetensors only), weights in fp32. Raises DiffcernError naming what is wrong."""
        check_files("prior", folder, FILES)
        config: NativeConfig = read_config(folder / "prior.json", NativeConfig, TRAINS)
        if config.architecture not in ARCHITECTURES:
            raise unknown("architecture", config.architecture, ARCHITECTURES)
        shape = read_shape(folder / "denoiser" / "config.json", SHAPES[config.architecture], TRAINS)
        schedule = read_schedule(folder, config.kind)
        with reading(folder, TRAINS):
            autoencoder = read_autoencoder(folder / AUTOENCODER) if config.features else None
        channels, side, _ = latent_shape(config, autoencoder)
        classes = len(config.class_names)
        embedded = shape.num_embeds_ada_norm if isinstance(shape, DiTShape) else shape.num_class_embeds - 1
        described = "denoiser/config.json"
        check_agreement(
            folder,
            {
                "an image_size of": (side, shape.sample_size, described),
                "channels and maps which together are": (channels + config.map_channels, shape.in_channels, described),
                "channels which are": (channels, shape.out_channels, described),
                "classes as many as": (classes, embedded, described),
            },
        )
        denoiser = read_denoiser(ARCHITECTURES[config.architecture], folder / "denoiser")
        with reading(folder, TRAINS):
            prior = cls(config, denoiser, schedule, autoencoder)
        read_clean(prior, folder)
        return prior


def latent_shape(config: NativeConfig, autoencoder: FeatureAutoencoder | None) -> tuple[int, int, int]:
    """(C, h, w) of the latents that such a prior denoises."""
    if autoencoder:
        return autoencoder.features.latent_shape
    return config.channels, config.image_size, config.image_size


def native_prior(
    config: NativeConfig,
    *,
    width: int,
    depth: int,
    heads: int,
    patch: int,
    schedule: str = "squaredcos_cap_v2",
    autoencoder: FeatureAutoencoder | None = None,
) -> NativePrior:
    """A new, untrained prior. width: channels (of the first level for a U-Net); depth: blocks (per level)."""
    count = len(config.class_names)
    channels, side, _ = latent_shape(config, autoencoder)
    shape: dict[str, Any] = {
        "sample_size": side,
        "in_channels": channels + config.map_channels,
        "out_channels": channels,
    }
    if config.architecture == "dit":
        denoiser: nn.Module = DiTTransformer2DModel(
            num_attention_heads=heads,
            attention_head_dim=width // heads,
            num_layers=depth,
            patch_size=patch,
            num_embeds_ada_norm=count,
            **shape,
        )
        _initialise_dit(denoiser)
    elif config.architecture == "unet":
        denoiser = UNet2DModel(
            block_out_channels=(width, 2 * width, 2 * width),
            layers_per_block=depth,
            down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=2 * width // heads,
            norm_num_groups=min(32, width // 4),
            num_class_embeds=count + 1,
            **shape,
        )
    else:
        raise unknown("architecture", config.architecture, ARCHITECTURES)
    return NativePrior(config, denoiser, new_schedule(config.kind, schedule), autoencoder)


def _initialise_dit(denoiser: nn.Module) -> None:
    """adaLN-Zero (Peebles & Xie 2023): modulations and the output start at zero, label tables at std 0.02."""
    for block in denoiser.transformer_blocks:  # type: ignore[union-attr]
        nn.init.zeros_(block.norm1.linear.weight)
        nn.init.zeros_(block.norm1.linear.bias)
        nn.init.normal_(block.norm1.emb.class_embedder.embedding_table.weight, std=0.02)
    for name, value in denoiser.named_parameters():
        if name.startswith("proj_out_"):
            nn.init.zeros_(value)
