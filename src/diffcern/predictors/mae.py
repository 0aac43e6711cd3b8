"""A masked autoencoder (He et al. 2022, arXiv 2111.06377) with a classification head, trained by `diffcern train mae`.

    L(x) = mean over masked patches of || g(f(x_visible)) - (x_patch - mean) / std ||^2 / d,    p(y | x) = h(f(x))

Encoder f, decoder g, head h; blocks and positions are timm's. Saved as `mae.json` and `model.safetensors`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from diffcern.configs import FORBID, Depth, Mean, Names, Side, Std, Width, read_config
from diffcern.errors import UsageError
from diffcern.files import check_files, reading, write_whole
from diffcern.predictors.base import Predictor
from diffcern.weights import check_shapes, read_weights, write_weights

FILES = ("mae.json", "model.safetensors")
MASKED = 0.75  # share of the patches that the encoder does not see


@dataclass(frozen=True)
class MaeConfig:
    """What `mae.json` holds: depth blocks `width` wide in the encoder, decoder_depth of half that in the decoder,
    head_depth in the head. mean, std: of the pixels, per channel."""

    __pydantic_config__ = FORBID

    image_size: Side
    class_names: Names
    mean: Mean
    std: Std
    width: Width = 96
    depth: Depth = 6
    heads: Width = 3
    patch: Width = 4
    decoder_depth: Depth = 2
    head_depth: Annotated[int, Field(ge=0, le=1000)] = 1


class Encoder(nn.Module):
    """Images `[B, 3, S, S]` -> tokens `[B, 1 + N, width]`, the first of which is no patch; kept: `[B, n]` of the N
    patches to see (default: all)."""

    positions: Tensor

    def __init__(self, config: MaeConfig) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, config.width, config.patch, config.patch)
        self.first = nn.Parameter(0.02 * torch.randn(1, 1, config.width))
        self.register_buffer("positions", _positions(config, config.width), persistent=False)
        self.blocks = nn.Sequential(*_blocks(config.depth, config.width, config.heads))
        self.norm = nn.LayerNorm(config.width, eps=1e-6)

    def forward(self, images: Tensor, kept: Tensor | None = None) -> Tensor:
        tokens = self.patches(images).flatten(2).mT + self.positions
        if kept is not None:
            tokens = tokens.take_along_dim(kept[..., None], 1)
        return self.norm(self.blocks(torch.cat([self.first.expand(len(images), -1, -1), tokens], 1)))


class Decoder(nn.Module):
    """Tokens of the kept patches -> pixels of all, `[B, N, 3 patch^2]`; place: `[B, N]`, where among the kept and then
    the masked patches each one is."""

    positions: Tensor

    def __init__(self, config: MaeConfig) -> None:
        super().__init__()
        width = config.width // 2
        self.embed = nn.Linear(config.width, width)
        self.masked = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.register_buffer("positions", _positions(config, width), persistent=False)
        self.blocks = nn.Sequential(*_blocks(config.decoder_depth, width, config.heads), nn.LayerNorm(width, eps=1e-6))
        self.pixels = nn.Linear(width, 3 * config.patch**2)

    def forward(self, tokens: Tensor, place: Tensor) -> Tensor:
        first, kept = self.embed(tokens).split([1, tokens.shape[1] - 1], 1)
        masked = self.masked.expand(len(kept), place.shape[1] - kept.shape[1], -1)
        patches = torch.cat([kept, masked], 1).take_along_dim(place[..., None], 1) + self.positions
        return self.pixels(self.blocks(torch.cat([first, patches], 1))[:, 1:])


class Reconstruction(nn.Module):
    """Images and noise `[B, N]` -> losses `[B]`; the patches with the largest noise are masked."""

    def __init__(self, config: MaeConfig) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.patch = config.patch

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        order = noise.argsort(1)
        count = int(order.shape[1] * (1 - MASKED))
        estimate = self.decoder(self.encoder(images, order[:, :count]), order.argsort(1))
        target = F.unfold(images, self.patch, stride=self.patch).mT  # [B, N, 3 patch^2]
        target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
        return (estimate - target).square().mean(-1).take_along_dim(order[:, count:], 1).mean(1)


class Head(nn.Module):
    """Tokens -> logits `[B, K]`: transformer blocks and a linear layer on the first token (none: a linear probe)."""

    def __init__(self, config: MaeConfig) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*_blocks(config.head_depth, config.width, config.heads))
        self.norm = nn.LayerNorm(config.width, eps=1e-6)
        self.classes = nn.Linear(config.width, len(config.class_names))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.classes(self.norm(self.blocks(tokens)[:, 0]))


class MaskedAutoencoder(nn.Module):
    """Images as prepared by the predictor -> logits; `reconstruction` holds encoder and decoder."""

    def __init__(self, config: MaeConfig) -> None:
        super().__init__()
        self.reconstruction, self.head = Reconstruction(config), Head(config)
        self.patches = (config.image_size // config.patch) ** 2

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.reconstruction.encoder(images))

    def noise(self, count: int, generator: torch.Generator) -> Tensor:
        """What decides `count` masks, `[count, N]` on the CPU."""
        return torch.rand(count, self.patches, generator=generator)

    def reconstruction_loss(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The mean over prepared images, one random mask each."""
        return self.reconstruction(images, self.noise(len(images), generator).to(images.device)).mean()


def mae_predictor(config: MaeConfig) -> Predictor:
    """A new predictor with random weights. Raises UsageError for sizes that do not divide."""
    if config.image_size % config.patch or config.image_size // config.patch < 2:
        raise UsageError(f"patch {config.patch} does not divide image_size {config.image_size} into four or more")
    if config.width % 8 or config.width % (2 * config.heads):
        raise UsageError(f"width is a multiple of 8 and of twice the {config.heads} heads, not {config.width}")
    model = MaskedAutoencoder(config)
    return Predictor(model, config.class_names, size=config.image_size, mean=config.mean, std=config.std)


def save_mae(predictor: Predictor, config: MaeConfig, folder: Path) -> None:
    """Writes `mae.json` and `model.safetensors`, weights in fp16."""
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(predictor.model.state_dict(), folder / "model.safetensors", torch.float16)
    write_whole(folder / "mae.json", (json.dumps(asdict(config), indent=1) + "\n").encode())


def read_mae(folder: Path) -> Predictor:
    """Reads such a folder, weights in fp32. Raises DiffcernError naming what is wrong."""
    check_files("predictor", folder, FILES)
    trains = "`diffcern train mae` writes such a file"
    config: MaeConfig = read_config(folder / "mae.json", MaeConfig, trains)
    with reading(folder / "mae.json", trains):
        check_shapes(lambda: mae_predictor(config).model, folder / "model.safetensors", "its mae.json")
        predictor = mae_predictor(config)
    read_weights(predictor.model, folder / "model.safetensors", "its mae.json")
    return predictor.float()


def _positions(config: MaeConfig, width: int) -> Tensor:
    from timm.layers import build_sincos2d_pos_embed  # slow to import

    side = config.image_size // config.patch
    return build_sincos2d_pos_embed([side, side], width)[None]


def _blocks(depth: int, width: int, heads: int) -> list[nn.Module]:
    from timm.models.vision_transformer import Block

    return [Block(width, heads, qkv_bias=True) for _ in range(depth)]
