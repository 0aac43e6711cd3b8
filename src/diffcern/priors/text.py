"""Text-to-image priors in diffusers' formats: Stable Diffusion 1.x, 2.x and XL, and Stable Diffusion 3 (flow matching).

A class is a prompt: `with_labels` embeds the labels' prompts once, and a soft label is their mixture, token by token
(Diffusion-TTA, arXiv 2311.16102). Any other text is a condition too: `prompts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import ControlNetModel
from torch import Tensor, nn

from diffcern.errors import UsageError
from diffcern.labels import Vocabulary
from diffcern.priors.base import Prior
from diffcern.priors.latent import Autoencoder
from diffcern.priors.schedule import schedule_of
from diffcern.priors.spatial import ControlledUNet, with_maps
from diffcern.types import Condition


class PromptEncoder:
    """The text half of a diffusers pipeline; copies of a prior share it."""

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
        """tokens `[B, L, D]` and, where the family has one, the pooled embedding `[B, P]`. Raises UsageError for a
        prompt that the tokenizer would cut off."""
        for prompt in prompts:
            self._check_length(prompt)
        parts = [self._embed(list(prompts[i : i + self.rows])) for i in range(0, len(prompts), self.rows)]
        return Condition(
            **{name: torch.cat([part.parts[name] for part in parts]).float().to(device) for name in parts[0].parts}
        )

    def _embed(self, prompts: list[str]) -> Condition:
        encoded = self.pipeline.encode_prompt(
            prompt=prompts,
            device=self.pipeline.text_encoder.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
            **({"prompt_2": None, "prompt_3": None} if hasattr(self.pipeline, "text_encoder_3") else {}),
        )
        return Condition(tokens=encoded[0], pooled=encoded[2] if len(encoded) > 2 else None)

    def _check_length(self, prompt: str) -> None:
        for name in ("tokenizer", "tokenizer_2"):
            tokenizer = getattr(self.pipeline, name, None)
            if tokenizer is not None and len(tokenizer(prompt).input_ids) > tokenizer.model_max_length:
                raise UsageError(
                    f"the prompt {prompt!r} is longer than the {tokenizer.model_max_length} tokens that the prior "
                    "reads: shorten it"
                )


class Table(nn.Module):
    """Conditions kept by a prior, moved with it."""

    def __init__(self, rows: Condition) -> None:
        super().__init__()
        for name, value in rows.parts.items():
            self.register_buffer(name, value, persistent=False)

    @property
    def rows(self) -> Condition:
        return Condition(**dict(self.named_buffers()))


class TextPrior(Prior):
    """What the families below share. Conditions: `classes` `[B, K]` over the labels, or `tokens` (and `pooled`).

    class_names is empty until `with_labels`. The unconditional condition is the empty prompt.
    """

    def __init__(self, pipeline: Any, denoiser: Any) -> None:
        super().__init__()
        self.denoiser = denoiser
        size, channels = denoiser.config.sample_size, pipeline.vae.config.latent_channels
        self.latent_shape = (channels, size, size)
        self.maps = denoiser.config.in_channels - channels  # channels that are concatenated to the latent's
        if self.maps:
            self.spatial_shape = (self.maps, size, size)
        self.autoencoder = Autoencoder(pipeline.vae, size)
        self.class_names = ()
        self.encoder = PromptEncoder(pipeline)
        self.set_schedule(schedule_of(pipeline.scheduler))
        self.null = Table(self.null_condition())
        self.labels, self.phrases = Table(Condition()), Table(Condition())
        self.owners: tuple[int, ...] = ()
        self.eval().requires_grad_(False)

    @classmethod
    def from_pipeline(cls, pipeline: Any, config: dict[str, Any]) -> TextPrior:
        """From diffusers' pipeline of the family, whose network is a U-Net or a transformer."""
        return cls(pipeline, pipeline.unet if "unet" in config else pipeline.transformer)

    def null_condition(self) -> Condition:
        """What stands for no prompt, one row."""
        return self.prompts([""])

    def prompts(self, texts: Sequence[str]) -> Condition:
        """The condition of each text."""
        return self.encoder(texts, self.device)

    def with_labels(self, vocabulary: Vocabulary) -> TextPrior:
        """Makes the prior class-conditional, in place.

        As a hypothesis a class is each of its prompts in turn (see `phrasings`); in a mixture, the mean of them.
        """
        prompts, counts = self.prompts(vocabulary.prompts), [len(own) for own in vocabulary.sentences]
        self.class_names, self.owners = vocabulary.labels, tuple(vocabulary.owners)
        self.phrases = Table(prompts)
        self.labels = self.phrases
        if max(counts) > 1:
            self.labels = Table(prompts.map(lambda value: torch.stack([own.mean(0) for own in value.split(counts)])))
        return self

    def phrasings(self, hypotheses: Condition) -> tuple[Condition, Tensor]:
        assert hypotheses.classes is not None  # of a class-conditional task
        classes = hypotheses.classes.argmax(1).tolist()
        rows = [(k, row) for k, name in enumerate(classes) for row, owner in enumerate(self.owners) if owner == name]
        owners, index = zip(*rows, strict=True)
        return self.phrases.rows[list(index)], torch.tensor(owners, device=self.device)

    def embeddings(self, condition: Condition, like: Tensor) -> Condition:
        """tokens (and pooled) for the rows of `like` `[B, ...]`, in its dtype."""
        if condition.classes is not None:
            weights = condition.classes
            condition = self.labels.rows.map(
                lambda table: torch.einsum("bk,k...->b...", weights.to(table.dtype), table)
            )
        elif condition.tokens is None:
            condition = self.null.rows.map(lambda table: table.expand(len(like), *table.shape[1:]))
        return condition.map(lambda value: value.to(like.dtype))

    def encode(self, images: Tensor) -> Tensor:
        return self.autoencoder.encode(images)

    def decode(self, latents: Tensor) -> Tensor:
        return self.autoencoder.decode(latents)


class StableDiffusionPrior(TextPrior):
    """Stable Diffusion 1.x and 2.x (Rombach et al. 2022): eps or v, one CLIP text encoder.

    Maps go to the channels that a depth-conditional model has beside the latent's, or to a ControlNet.
    """

    def control(self, controlnet: ControlNetModel) -> None:
        """Lets a ControlNet read the maps, `[B, C, H, W]` in [0, 1] at the size of the images, in place."""
        self.denoiser = ControlledUNet(self.denoiser, controlnet)
        size = self.autoencoder.size
        self.spatial_shape = (controlnet.config.conditioning_channels, size, size)
        self.requires_grad_(False)

    def denoise(self, x_t: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        x = x_t.to(self.dtype)
        text = self.embeddings(condition, x)
        added = {"spatial": condition.spatial} if isinstance(self.denoiser, ControlledUNet) else {}
        return self.denoiser(
            with_maps(x, condition, self.maps),
            self.times[timesteps],
            encoder_hidden_states=text.tokens,
            **added,
            **self.beside(text, x),
        ).sample

    def beside(self, text: Condition, x: Tensor) -> dict[str, Any]:
        """What the network is told beside the prompt's tokens."""
        return {}


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


class StableDiffusion3Prior(TextPrior):
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
