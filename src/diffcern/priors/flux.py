"""FLUX.1 and FLUX.2 [klein] in diffusers' format (Black Forest Labs 2024, 2025): flow matching over one sequence of a
prompt's tokens and patches of latents.

A token of the picture is 2 x 2 latents, and hears its row and column. FLUX.1-dev was distilled from guidance and is
told how much (`priors/guidance.py`). FLUX.1-schnell and the klein of four steps were distilled to few steps: they map
x_t to one likely image and not to the mean of all, so that their errors are no bounds on a likelihood.

The networks hear the time in their own precision: in bfloat16 several of a thousand times are one (as in diffusers).
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffcern.errors import DiffcernError, UsageError
from diffcern.priors.guidance import GUIDANCE
from diffcern.priors.latent import PUBLISHED_RESIZE, Autoencoder, to_square
from diffcern.priors.schedule import schedule_of
from diffcern.priors.sizes import KEY, downsampling, side_of
from diffcern.priors.stable_diffusion import LatentTextPrior, PromptEncoder, guidance_of
from diffcern.types import Condition

PATCH = 2
TRAINED = 1000  # times of a flow's grid; the networks hear them in [0, 1]


class TwoPromptEncoder(PromptEncoder):
    """FLUX.1's: T5's tokens `[B, 512, D]`, padding and all, and CLIP's pooled embedding, which reads 77."""

    def __init__(self, pipeline: Any, rows: int = 64) -> None:
        super().__init__(pipeline, rows)
        self.limit = inspect.signature(pipeline.encode_prompt).parameters["max_sequence_length"].default

    def _embed(self, prompts: list[str], device: torch.device) -> Condition:
        tokens, pooled, _ = self.pipeline.encode_prompt(prompts, device=device)
        return Condition(tokens=tokens, pooled=pooled)


class ChatPromptEncoder(PromptEncoder):
    """FLUX.2 [klein]'s: three hidden states of a Qwen3 that is told the prompt as a chat, `[B, 512, 3 D]`, padding and
    all."""

    def __init__(self, pipeline: Any, rows: int = 64) -> None:
        super().__init__(pipeline, rows)
        whole = inspect.signature(pipeline.encode_prompt).parameters["max_sequence_length"].default
        chat = [{"role": "user", "content": ""}]
        template = pipeline.tokenizer.apply_chat_template(
            chat, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        self.limit = whole - len(pipeline.tokenizer(template)["input_ids"])

    def _embed(self, prompts: list[str], device: torch.device) -> Condition:
        tokens, _ = self.pipeline.encode_prompt(prompts, device=device)
        return Condition(tokens=tokens)


class PatchAutoencoder(nn.Module):
    """FLUX.2's autoencoder: latents are patches of its own, normalised by the running mean and variance that it keeps.

    latent_size: the side in patches; size: in pixels. Frozen, in fp32, as `Autoencoder`.
    """

    def __init__(self, vae: Any, latent_size: int) -> None:
        super().__init__()
        self.vae = vae.float()
        self.size = latent_size * PATCH * downsampling(vae.config)

    @property
    def spread(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the patches, `[C, 1, 1]`."""
        norm = self.vae.bn
        deviation = (norm.running_var + self.vae.config.batch_norm_eps).sqrt()
        return norm.running_mean[:, None, None], deviation[:, None, None]

    def encode(self, images: Tensor) -> Tensor:
        """As of `Autoencoder`."""
        pixels = to_square(images, self.size, PUBLISHED_RESIZE)
        means = torch.cat([self.vae.encode(image[None]).latent_dist.mean for image in pixels])
        mean, deviation = self.spread
        return (F.pixel_unshuffle(means, PATCH) - mean) / deviation

    def decode(self, latents: Tensor) -> Tensor:
        """As of `Autoencoder`."""
        mean, deviation = self.spread
        z = F.pixel_shuffle(latents.float() * deviation + mean, PATCH)
        return ((torch.cat([self.vae.decode(one[None]).sample for one in z]) + 1) / 2).clamp(0, 1)


class FluxFamily(LatentTextPrior):
    """What FLUX.1 and FLUX.2 share. reads: what encodes prompts; makes: latents; guidance: what is told of it.

    The side of its images is what the autoencoder's config.json says, or else diffusers' pipeline. Raises DiffcernError
    for an autoencoder of another model, UsageError for guidance that the network cannot be told.
    """

    reads: type[PromptEncoder]
    makes: type[Autoencoder] | type[PatchAutoencoder]

    def __init__(self, pipeline: Any, guidance: float | None = None) -> None:
        check_channels(pipeline)
        shape = self.shape_of(pipeline)
        super().__init__(pipeline.transformer, self.reads(pipeline), schedule_of(pipeline.scheduler), shape)
        self.guidance = guidance
        self.autoencoder = self.makes(pipeline.vae, shape[-1]).eval().requires_grad_(False)

    @classmethod
    def from_pipeline(cls, pipeline: Any, config: dict[str, Any]) -> FluxFamily:
        return cls(pipeline, config.get(GUIDANCE))

    @staticmethod
    def shape_of(pipeline: Any) -> tuple[int, int, int]:
        """(C, h, w) of the latents."""
        side = even_side(pipeline)
        return pipeline.vae.config.latent_channels, side, side


class FluxPrior(FluxFamily):
    """FLUX.1 [dev] and [schnell]. Conditions are `classes`, or `tokens` and `pooled`."""

    reads, makes = TwoPromptEncoder, Autoencoder

    def __init__(self, pipeline: Any, guidance: float | None = None) -> None:
        super().__init__(pipeline, guidance_of(pipeline, pipeline.transformer, guidance))

    def denoise(self, x_t: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        patches = F.pixel_unshuffle(x_t.to(self.dtype), PATCH)
        text = self.embeddings(condition, patches)
        assert text.tokens is not None
        output = self.denoiser(
            hidden_states=patches.flatten(2).transpose(1, 2),
            timestep=self.times[timesteps] / TRAINED,
            guidance=None if self.guidance is None else x_t.new_full((len(x_t),), self.guidance),
            encoder_hidden_states=text.tokens,
            pooled_projections=text.pooled,
            img_ids=F.pad(places(patches), (1, 0)),
            txt_ids=patches.new_zeros(text.tokens.shape[1], 3),
        ).sample
        return F.pixel_shuffle(output.transpose(1, 2).reshape(patches.shape), PATCH)


class Flux2KleinPrior(FluxFamily):
    """FLUX.2 [klein]. Conditions are `classes`, or `tokens`; latents are `[128, 64, 64]` patches. Nothing is told of
    guidance, nor by diffusers' pipeline."""

    reads, makes = ChatPromptEncoder, PatchAutoencoder

    def __init__(self, pipeline: Any, guidance: float | None = None) -> None:
        if guidance is not None:
            raise UsageError(
                f"+{GUIDANCE} is for distilled networks that are told it, and this one is not: leave it out"
            )
        super().__init__(pipeline)

    @staticmethod
    def shape_of(pipeline: Any) -> tuple[int, int, int]:
        side = even_side(pipeline) // PATCH
        return pipeline.transformer.config.in_channels, side, side

    def denoise(self, x_t: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        x = x_t.to(self.dtype)
        text = self.embeddings(condition, x)
        assert text.tokens is not None
        order = torch.arange(text.tokens.shape[1], device=x.device)
        output: Tensor = self.denoiser(
            hidden_states=x.flatten(2).transpose(1, 2),
            timestep=self.times[timesteps] / TRAINED,
            encoder_hidden_states=text.tokens,
            img_ids=F.pad(places(x), (1, 1)),
            txt_ids=F.pad(order[:, None], (3, 0)),
        ).sample
        return output.transpose(1, 2).reshape(x.shape)


def places(patches: Tensor) -> Tensor:
    """Row and column `[h w, 2]` of patches `[B, C, h, w]`."""
    rows, columns = (torch.arange(side, device=patches.device) for side in patches.shape[2:])
    return torch.cartesian_prod(rows, columns)


def even_side(pipeline: Any) -> int:
    """The side of the latents: the autoencoder's, where its config.json names that of its images, or the pipeline's.

    Raises DiffcernError for an odd one, which has no patches.
    """
    known = KEY in pipeline.vae.config and KEY not in pipeline.vae.config.get("_use_default_values", ())
    side: int = side_of(pipeline.transformer, pipeline.vae) if known else pipeline.default_sample_size
    if side % PATCH:
        raise DiffcernError(f"the prior's latents are {side} a side, which no patches of {PATCH} make up: see {KEY}")
    return side


def check_channels(pipeline: Any) -> None:
    """Raises DiffcernError unless the network reads patches of what the autoencoder makes."""
    reads, makes = pipeline.transformer.config.in_channels, PATCH**2 * pipeline.vae.config.latent_channels
    if reads != makes:
        raise DiffcernError(
            f"the prior's network reads patches of {reads} channels, and its autoencoder makes some of {makes}: the "
            "two belong to different models, restore the folder"
        )
