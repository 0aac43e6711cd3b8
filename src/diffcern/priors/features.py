"""Diffusion in what a frozen predictor sees: a representation autoencoder (RAE: Zheng et al. 2025, arXiv 2510.11690)
of our own; diffusers' is in `rae.py`.

    latent_c = (features(image)_c - mean_c) / deviation_c,    image ~ decoder(latent)

The features are the last map of a predictor that `diffcern train predictor` made, their statistics those of training
images, the decoder is trained beside the prior on the mean squared error of pixels. What the encoder leaves out no
decoder brings back, and likelihoods are of features, not of pixels. Saved as a folder: `features.json`, `encoder/` (a
predictor's folder) and `decoder.safetensors`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from diffcern.assets import asset
from diffcern.configs import FORBID, Width, read_config
from diffcern.errors import UsageError
from diffcern.files import check_files, write_whole
from diffcern.predictors.encoder import feature_map
from diffcern.predictors.native import NativePredictorConfig, native_config, read_predictor, save_predictor
from diffcern.resizing import interpolate
from diffcern.types import Latents
from diffcern.weights import read_weights, write_weights

CONFIG, DECODER, ENCODER = "features.json", "decoder.safetensors", "encoder"
FILES = (CONFIG, DECODER, f"{ENCODER}/predictor.json", f"{ENCODER}/model.safetensors")
TRAINS = "`diffcern train prior --encoder` writes such a folder"
HIDDEN = 64  # channels of the decoder before its first doubling, half as many after each
Number = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class Features:
    """What `features.json` holds: of images of `image_size` pixels the encoder's map has len(mean) channels and
    image_size / 2^doublings rows; each channel's mean and deviation over training images."""

    __pydantic_config__ = FORBID

    image_size: Width
    doublings: Annotated[int, Field(ge=0, le=8)]
    mean: Annotated[tuple[Number, ...], Field(min_length=1)]
    deviation: Annotated[tuple[Positive, ...], Field(min_length=1)]

    def __post_init__(self) -> None:
        """ValueError, which a validator reports, for what contradicts itself."""
        if len(self.mean) != len(self.deviation):
            raise ValueError("as many deviations as means")

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        side = self.image_size // 2**self.doublings
        return len(self.mean), side, side


class FeatureAutoencoder(nn.Module):
    """A frozen encoder, kept in fp32, and a decoder."""

    def __init__(self, encoder_folder: Path, features: Features) -> None:
        super().__init__()
        self.features = features
        self.encoder_config: NativePredictorConfig = native_config(encoder_folder)
        self.encoder = read_predictor(encoder_folder).eval().requires_grad_(False)
        self.decoder = _decoder(len(features.mean), features.doublings)
        self.register_buffer("mean", torch.tensor(features.mean).view(-1, 1, 1))
        self.register_buffer("deviation", torch.tensor(features.deviation).view(-1, 1, 1))

    def train(self, mode: bool = True) -> FeatureAutoencoder:
        """The encoder's BatchNorm keeps the statistics that it has."""
        super().train(mode)
        self.encoder.eval()
        return self

    def encode(self, images: Float[Tensor, "batch 3 rows columns"]) -> Latents:
        """`[B, 3, H, W]` in [0, 1], any size -> `[B, C, h, w]`, one image at a time: company changes no latent."""
        return torch.cat([self.together(image[None]) for image in images])

    def together(self, images: Float[Tensor, "batch 3 rows columns"]) -> Latents:
        """The same in one pass, up to rounding."""
        side = self.features.image_size
        seen = feature_map(self.encoder, interpolate(images, (side, side), "bilinear"))
        return (seen - self.get_buffer("mean")) / self.get_buffer("deviation")

    def decode(self, latents: Latents) -> Float[Tensor, "batch 3 rows columns"]:
        """Latents -> images `[B, 3, H, W]` in [0, 1]."""
        return torch.cat([self.decoder(latent[None].float()) for latent in latents]).clamp(0, 1)

    def save(self, folder: Path) -> None:
        """Writes the folder this module's docstring describes, weights in fp16."""
        save_predictor(self.encoder, self.encoder_config, folder / ENCODER)
        write_weights(self.decoder.state_dict(), folder / DECODER, torch.float16)
        write_whole(folder / CONFIG, (json.dumps(asdict(self.features), indent=1) + "\n").encode())


def read_autoencoder(folder: Path) -> FeatureAutoencoder:
    """Reads such a folder, weights in fp32. Raises DiffcernError naming what is wrong."""
    check_files("autoencoder", folder, FILES)
    autoencoder = FeatureAutoencoder(folder / ENCODER, read_config(folder / CONFIG, Features, TRAINS))
    read_weights(autoencoder.decoder, folder / DECODER, CONFIG)
    return autoencoder


@torch.no_grad()
def new_autoencoder(encoder: str, images: Float[Tensor, "batch 3 size size"]) -> FeatureAutoencoder:
    """With an untrained decoder; statistics of the given images, which have the prior's size, in [0, 1].

    encoder: the folder of a predictor, or embedded:NAME. Raises UsageError for one that has no map of features, or one
    whose side is not the image's halved a few times.
    """
    family, _, name = encoder.partition(":")
    folder = asset(name, "predictor") if family == "embedded" else Path(encoder).expanduser()
    if not (folder / "predictor.json").is_file():
        raise UsageError(
            f"--encoder takes the folder of a predictor that `diffcern train predictor` made, not {encoder}"
        )
    predictor = read_predictor(folder).eval()
    seen = torch.cat([feature_map(predictor, some) for some in images.split(256)])
    side, doublings = images.shape[-1], (images.shape[-1] // seen.shape[-1]).bit_length() - 1
    if seen.shape[-1] * 2**doublings != side:
        raise UsageError(
            f"the encoder's map has {seen.shape[-1]} rows for {side} of the image, which is not halved a few times: "
            "give the encoder's own --image-size"
        )
    mean, deviation = seen.mean((0, 2, 3)), seen.std((0, 2, 3)).clamp(min=1e-3)
    return FeatureAutoencoder(folder, Features(side, doublings, _rounded(mean), _rounded(deviation)))


def _rounded(values: Tensor) -> tuple[float, ...]:
    return tuple(round(value, 5) for value in values.tolist())


def _decoder(channels: int, doublings: int) -> nn.Sequential:
    """Convolutions that double the sides with `PixelShuffle`."""
    width = HIDDEN
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), nn.SiLU()]
    for _ in range(doublings):
        after = max(width // 2, 8)
        layers += [nn.Conv2d(width, 4 * after, 3, padding=1), nn.PixelShuffle(2), nn.SiLU()]
        width = after
    return nn.Sequential(*layers, nn.Conv2d(width, 3, 3, padding=1))
