"""Text-to-image priors in diffusers' formats: Stable Diffusion 1.x, 2.x, XL and 3, and what all such priors share.

With a network that is told the guidance (`time_cond_proj_dim`), Stable Diffusion is a latent consistency model (Luo et
al. 2023, arXiv 2310.04378). That maps x_t to the end of the guided probability flow, one likely image, and not to the
mean of all: its error is no bound on a likelihood, though as its boundary condition holds, near t = 0 the two agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from diffcern.errors import DiffcernError, UsageError
from diffcern.priors.controlnet import Control, ControlledUNet
from diffcern.priors.guidance import GUIDANCE, hears_guidance, usual_guidance
from diffcern.priors.latent import Autoencoder
from diffcern.priors.schedule import schedule_of
from diffcern.priors.sizes import side_of
from diffcern.priors.spatial import Maps, with_maps
from diffcern.priors.text import TextPrior
from diffcern.types import Condition
from diffcern.words import check_length

if TYPE_CHECKING:
    from diffusers import ControlNetModel


class PromptEncoder:
    """The text half of a diffusers pipeline; copies of a prior share it. rows: prompts encoded at a time; limit: tokens
    that are read of one, None for as many as its tokenizers say."""

    limit: int | None = None

    def __init__(self, pipeline: Any, rows: int = 64) -> None:
        self.pipeline = pipeline
        self.rows = rows
        for network in self.networks:
            nn.Module.to(network, torch.float32)  # some are published in half precision

    @property
    def networks(self) -> list[nn.Module]:
        """The text encoders."""
        names = ("text_encoder", "text_encoder_2", "text_encoder_3")
        return [part for name in names if isinstance(part := getattr(self.pipeline, name, None), nn.Module)]

    @property
    def vocabularies(self) -> list[dict[str, int]]:
        """Of the tokenizers, token to number."""
        tokenizers = (getattr(self.pipeline, name, None) for name in ("tokenizer", "tokenizer_2", "tokenizer_3"))
        return [tokenizer.get_vocab() for tokenizer in tokenizers if tokenizer is not None]

    def __deepcopy__(self, memo: dict[int, Any]) -> PromptEncoder:
        return self

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str], device: torch.device) -> Condition:
        """tokens `[B, L, D]` and, where the family has one, the pooled embedding `[B, P]`, on the device, where the
        encoders are for as long as this takes. Raises UsageError for a prompt that the tokenizer would cut off."""
        for name in ("tokenizer", "tokenizer_2"):
            if tokenizer := getattr(self.pipeline, name, None):
                for prompt in prompts:
                    check_length(tokenizer, prompt, self.limit)
        with self._on(device):
            parts = [self._embed(list(prompts[i : i + self.rows]), device) for i in range(0, len(prompts), self.rows)]
        return Condition(**{name: torch.cat([part.parts[name] for part in parts]).float() for name in parts[0].parts})

    @contextmanager
    def _on(self, device: torch.device) -> Iterator[None]:
        """Puts the encoders there, and back into main memory afterwards: they can be larger than the denoiser."""
        try:
            for network in self.networks:
                nn.Module.to(network, device)
            yield
        finally:
            for network in self.networks:
                nn.Module.to(network, "cpu")

    def _embed(self, prompts: list[str], device: torch.device) -> Condition:
        encoded = self.pipeline.encode_prompt(
            prompt=prompts,
            device=device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
            **({"prompt_2": None, "prompt_3": None} if hasattr(self.pipeline, "text_encoder_3") else {}),
        )
        return Condition(tokens=encoded[0], pooled=encoded[2] if len(encoded) > 2 else None)


class LatentTextPrior(TextPrior):
    """What reads text in the latents of an `autoencoder`."""

    autoencoder: Any

    def encode(self, images: Tensor) -> Tensor:
        return self.autoencoder.encode(images)

    def decode(self, latents: Tensor) -> Tensor:
        return self.autoencoder.decode(latents)


class PipelinePrior(LatentTextPrior):
    """What text-to-image families share: the parts of a diffusers pipeline, its autoencoder for latents.

    reads: what encodes prompts; sees_maps: whether channels beside the latent's are maps; guidance: the strength that
    the network is told, None where it hears none (see `priors/guidance.py`). Raises DiffcernError for parts that do not
    fit each other.
    """

    reads: type[PromptEncoder] = PromptEncoder
    sees_maps = False
    encoder: PromptEncoder

    def __init__(self, pipeline: Any, denoiser: Any, guidance: float | None = None) -> None:
        size, channels = side_of(denoiser, pipeline.vae), pipeline.vae.config.latent_channels
        super().__init__(denoiser, self.reads(pipeline), schedule_of(pipeline.scheduler), (channels, size, size))
        self.guidance = guidance_of(pipeline, denoiser, guidance)
        self.map_channels = denoiser.config.in_channels - channels  # channels that are concatenated to the latent's
        if self.map_channels < 0 or (self.map_channels and not self.sees_maps):
            raise DiffcernError(
                f"the prior's network reads latents of {denoiser.config.in_channels} channels, and its autoencoder "
                f"makes some of {channels}: the two belong to different models, restore the folder"
            )
        if self.map_channels:
            self.spatial_shape = (self.map_channels, size, size)
            self.maps = Maps("depth") if self.map_channels == 1 else None  # Stable Diffusion 2's depth model
        self.autoencoder = Autoencoder(pipeline.vae, size).eval().requires_grad_(False)

    @classmethod
    def from_pipeline(cls, pipeline: Any, config: dict[str, Any]) -> PipelinePrior:
        """From diffusers' pipeline of the family, whose network is a U-Net or a transformer."""
        return cls(pipeline, pipeline.unet if "unet" in config else pipeline.transformer, config.get(GUIDANCE))


def guidance_of(pipeline: Any, denoiser: Any, wanted: float | None) -> float | None:
    """The strength of guidance that a network is told, if it hears any. Raises UsageError for one that it cannot."""
    if hears_guidance(denoiser):
        return usual_guidance(pipeline) if wanted is None else wanted
    if wanted is not None:
        raise UsageError(f"+{GUIDANCE} is for distilled networks that are told it, and this one is not: leave it out")
    return None


class StableDiffusionPrior(PipelinePrior):
    """Stable Diffusion 1.x and 2.x (Rombach et al. 2022): eps or v, one CLIP text encoder; latent consistency models.

    Maps go to the channels that a depth-conditional model has beside the latent's, or to a ControlNet.
    """

    sees_maps = True

    def control(self, controlnet: ControlNetModel, control: Control) -> None:
        """Lets a ControlNet read the maps, `[B, C, H, W]` in [0, 1] at the size of the images, in place.

        control: what they show. Raises UsageError where that is drawn in colours and the ControlNet reads
        none, and for a prior that reads maps already.
        """
        if self.map_channels:
            raise UsageError(
                f"this prior reads depth beside its latents, and takes no {control.name} as well: leave that out"
            )
        channels, size = controlnet.config.conditioning_channels, self.autoencoder.size
        if control.maps is not None:
            if channels != len(control.colours[0]):
                raise UsageError(
                    f"{control.name} reads {channels} channels, and a picture of {control.maps.kind} has 3"
                )
            self.maps, self.colours = control.maps, control.colours
        self.denoiser = ControlledUNet(self.denoiser, controlnet)
        self.spatial_shape = (channels, size, size)
        self.requires_grad_(False)

    def denoise(self, x_t: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        x = x_t.to(self.dtype)
        text = self.embeddings(condition, x)
        added: dict[str, Any] = {}
        if isinstance(self.denoiser, ControlledUNet):
            added["spatial"] = condition.spatial
        if self.guidance is not None:
            added["timestep_cond"] = self.strength(x)
        return self.denoiser(
            with_maps(x, condition, self.map_channels),
            self.times[timesteps],
            encoder_hidden_states=text.tokens,
            **added,
            **self.beside(text, x),
        ).sample

    def beside(self, text: Condition, x: Tensor) -> dict[str, Any]:
        """What the network is told beside the prompt's tokens."""
        return {}

    def strength(self, x: Tensor) -> Tensor:
        """The embedding `[B, D]` of the guidance w that a latent consistency model is told, guidance - 1 in diffusers'
        terms."""
        assert self.guidance is not None
        w, width = torch.tensor([self.guidance - 1]), self.denoiser.config.time_cond_proj_dim
        embedding: Tensor = self.encoder.pipeline.get_guidance_scale_embedding(w, embedding_dim=width)
        return embedding.to(x).expand(len(x), -1)


class StableDiffusionXLPrior(StableDiffusionPrior):
    """Stable Diffusion XL (Podell et al. 2023): two text encoders, a pooled embedding, and the size as a condition."""

    def null_condition(self) -> Condition:
        empty = self.prompts([""])
        zeros = self.encoder.pipeline.config.get("force_zeros_for_empty_prompt", True)
        return empty.map(torch.zeros_like) if zeros else empty

    def beside(self, text: Condition, x: Tensor) -> dict[str, Any]:
        size = self.autoencoder.size  # original size, crop corner, target size: an uncropped image of native size
        sizes = x.new_tensor([size, size, 0, 0, size, size]).expand(len(x), -1)
        return {"added_cond_kwargs": {"text_embeds": text.pooled, "time_ids": sizes}}


class StableDiffusion3Prior(PipelinePrior):
    """Stable Diffusion 3 (Esser et al. 2024, arXiv 2403.03206): flow matching, two or three text encoders."""

    def denoise(self, x_t: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        x = x_t.to(self.dtype)
        text = self.embeddings(condition, x)
        return self.denoiser(
            hidden_states=x,
            timestep=self.times[timesteps],
            encoder_hidden_states=text.tokens,
            pooled_projections=text.pooled,
        ).sample
