"""Our own small text-to-image prior: a transformer in pixel space that reads captions through its own text encoder.

The network is PixArt's (Chen et al. 2023, arXiv 2310.00426): a DiT whose blocks attend to the caption's tokens. The
text encoder is CLIP's (Radford et al. 2021, arXiv 2103.00020) over whole words, trained together with the network.
Captions are padded to one length and the network sees the padding too, as Stable Diffusion's does: the padding of a
caption is a function of that caption, so that its tokens are the same in any company, and captions of different
lengths can be mixed token by token.

Saved as a folder: `prior.json`, `denoiser/` and `scheduler/` (diffusers' formats), `text_encoder/` and `tokenizer/`
(transformers'), and what is known of clean images (`priors/clean.py`). Trained by `diffcern train text-prior`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import PixArtTransformer2DModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from diffcern.configs import FORBID, Side, read_config
from diffcern.errors import DiffcernError, unknown
from diffcern.files import check_files, reading, write_whole
from diffcern.priors.clean import read_clean, write_clean
from diffcern.priors.latent import pixel_images, pixel_latents
from diffcern.priors.own import (
    OBJECTIVES,
    SCHEDULER,
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
from diffcern.priors.shapes import PixArtShape, WordsShape, check_agreement, read_shape
from diffcern.priors.text import TextPrior
from diffcern.types import Condition
from diffcern.weights import DAMAGED, check_shapes, read_weights, write_weights
from diffcern.words import check_tokenizer, text_config, token_ids

ARCHITECTURE = "text-dit"  # in prior.json
FILES = (
    "prior.json",
    "denoiser/config.json",
    f"denoiser/{WEIGHTS}",
    SCHEDULER,
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/tokenizer.json",
)
TRAINS = "`diffcern train text-prior` writes such a folder"


@dataclass(frozen=True)
class CaptionedConfig:
    """What `prior.json` holds. channels: 1 for grey priors (images are averaged over their channels)."""

    __pydantic_config__ = FORBID

    kind: Kind
    image_size: Side
    channels: Channels
    architecture: str = ARCHITECTURE


class CaptionEncoder:
    """Captions to token embeddings, with a transformers text encoder over whole words; copies of a prior share it."""

    def __init__(self, network: CLIPTextModel, tokenizer: PreTrainedTokenizerFast) -> None:
        self.network: Any = network.float().eval().requires_grad_(False)
        self.tokenizer = tokenizer

    @property
    def networks(self) -> list[nn.Module]:
        return [self.network]

    @property
    def vocabularies(self) -> list[dict[str, int]]:
        return [self.tokenizer.get_vocab()]

    def __deepcopy__(self, memo: dict[int, Any]) -> CaptionEncoder:
        return self

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str], device: torch.device) -> Condition:
        """tokens `[B, L, D]`. Raises UsageError for a prompt that is too long or has an unknown word."""
        ids = token_ids(self.tokenizer, prompts).to(self.network.device)
        return Condition(tokens=self.read(ids).float().to(device))

    def read(self, ids: Tensor) -> Tensor:
        """Token numbers `[B, L]`, on the encoder's device, to embeddings `[B, L, D]`, with a gradient."""
        embeddings: Tensor = self.network(ids).last_hidden_state  # causal: no word depends on the padding behind it
        return embeddings


class CaptionedPrior(TextPrior):
    """latent = 2 * resized image - 1, as of `NativePrior`; conditions as of `TextPrior`."""

    pixels = True
    encoder: CaptionEncoder

    def __init__(
        self,
        config: CaptionedConfig,
        denoiser: PixArtTransformer2DModel,
        encoder: CaptionEncoder,
        scheduler: Scheduler,
    ) -> None:
        plain_attention(denoiser)
        shape = (config.channels, config.image_size, config.image_size)
        super().__init__(denoiser, encoder, schedule_of(scheduler), shape)
        self.config = config
        self.scheduler = scheduler

    def encode(self, images: Tensor) -> Tensor:
        return pixel_latents(images, self.config.channels, self.config.image_size)

    def decode(self, latents: Tensor) -> Tensor:
        return pixel_images(latents)

    def denoise(self, x_t: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        x = x_t.to(self.dtype)
        tokens = self.embeddings(condition, x).tokens
        return self.denoiser(x, encoder_hidden_states=tokens, timestep=self.times[timesteps]).sample

    def save_pretrained(self, folder: Path, dtype: torch.dtype = torch.float16) -> None:
        """Writes the folder this module's docstring describes; weights in `dtype`."""
        folder.mkdir(parents=True, exist_ok=True)
        self.denoiser.save_config(folder / "denoiser")
        write_weights(self.denoiser.state_dict(), folder / "denoiser" / WEIGHTS, dtype)
        self.encoder.network.config.save_pretrained(folder / "text_encoder")
        write_weights(self.encoder.network.state_dict(), folder / "text_encoder" / "model.safetensors", dtype)
        self.encoder.tokenizer.save_pretrained(folder / "tokenizer")
        self.scheduler.save_pretrained(folder / "scheduler")
        write_whole(folder / "prior.json", (json.dumps(asdict(self.config), indent=1) + "\n").encode())
        write_clean(self, folder)

    @classmethod
    def from_pretrained(cls, folder: Path) -> CaptionedPrior:
        """Reads such a folder (safetensors only), weights in fp32. Raises DiffcernError naming what is wrong."""
        check_files("prior", folder, FILES)
        config: CaptionedConfig = read_config(folder / "prior.json", CaptionedConfig, TRAINS)
        shape = read_shape(folder / "denoiser" / "config.json", PixArtShape, TRAINS)
        words = read_shape(folder / "text_encoder" / "config.json", WordsShape, TRAINS)
        schedule = read_schedule(folder, config.kind)
        described = "denoiser/config.json"
        check_agreement(
            folder,
            {
                "an image_size of": (config.image_size, shape.sample_size, described),
                "channels which are": (config.channels, shape.in_channels, described),
                "channels, also of the answer, which are": (config.channels, shape.out_channels, described),
            },
        )
        if shape.cross_attention_dim != words.hidden_size:
            raise DiffcernError(
                f"{folder}: the network reads captions {shape.cross_attention_dim} wide, and text_encoder makes them "
                f"{words.hidden_size} wide: the two belong to different priors: restore the folder"
            )
        denoiser = read_denoiser(PixArtTransformer2DModel, folder / "denoiser")
        weights = folder / "text_encoder" / "model.safetensors"
        with reading(folder / "text_encoder", DAMAGED):
            reads = CLIPTextConfig.from_pretrained(folder / "text_encoder")
            check_shapes(lambda: text_encoder(reads), weights, "its config.json")
            network = text_encoder(reads)
        read_weights(network, weights, "its config.json")
        with reading(folder / "tokenizer", TRAINS):
            tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer")
            check_tokenizer(tokenizer, words.vocab_size, words.max_position_embeddings)
        with reading(folder, "Its parts may belong to different priors"):
            prior = cls(config, denoiser, CaptionEncoder(network, tokenizer), schedule)
        read_clean(prior, folder)
        return prior


def text_encoder(config: CLIPTextConfig) -> CLIPTextModel:
    """With attention in plain products, like the denoiser's."""
    return CLIPTextModel._from_config(config, attn_implementation="eager")


def captioned_prior(
    config: CaptionedConfig,
    tokenizer: PreTrainedTokenizerFast,
    *,
    width: int,
    depth: int,
    heads: int,
    patch: int,
    text_width: int,
    text_depth: int,
    text_heads: int,
    schedule: str = "squaredcos_cap_v2",
) -> CaptionedPrior:
    """A new, untrained prior that reads the tokenizer's words. Raises UsageError for an unknown kind."""
    if config.kind not in OBJECTIVES:
        raise unknown("objective", config.kind, OBJECTIVES)
    denoiser = PixArtTransformer2DModel(
        num_attention_heads=heads,
        attention_head_dim=width // heads,
        in_channels=config.channels,
        out_channels=config.channels,
        num_layers=depth,
        cross_attention_dim=text_width,
        sample_size=config.image_size,
        patch_size=patch,
        use_additional_conditions=False,
    )
    _initialise(denoiser)
    encoder = CaptionEncoder(text_encoder(text_config(tokenizer, text_width, text_depth, text_heads)), tokenizer)
    return CaptionedPrior(config, denoiser, encoder, new_schedule(config.kind, schedule))


def _initialise(denoiser: PixArtTransformer2DModel) -> None:
    """adaLN-Zero (Peebles & Xie 2023): modulations, what is read from captions and the output start at zero."""
    silent = [denoiser.adaln_single.linear, denoiser.proj_out]
    for block in denoiser.transformer_blocks:
        nn.init.zeros_(block.scale_shift_table)
        silent.append(block.attn2.to_out[0])
    for layer in silent:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
