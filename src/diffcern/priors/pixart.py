"""PixArt-alpha and -sigma in diffusers' format (Chen et al. 2023, arXiv 2310.00426; 2024, arXiv 2403.04692): a DiT that
reads T5's tokens, in the latents of an autoencoder."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from diffcern.priors.masks import masked, present_tokens
from diffcern.priors.stable_diffusion import PipelinePrior, PromptEncoder
from diffcern.types import Condition


class MaskedPromptEncoder(PromptEncoder):
    """tokens `[B, L, D]` and which of them are no padding, mask `[B, L]`; L is 120 for PixArt-alpha, 300 for -sigma.

    Prompts are put into lower case, as diffusers' pipeline does; the further cleaning of its `clean_caption`, which
    needs packages that may be absent, is left out.
    """

    def __init__(self, pipeline: Any, rows: int = 64) -> None:
        super().__init__(pipeline, rows)
        self.limit = inspect.signature(pipeline.encode_prompt).parameters["max_sequence_length"].default

    def _embed(self, prompts: list[str], device: torch.device) -> Condition:
        tokens, mask, *_ = self.pipeline.encode_prompt(prompts, do_classifier_free_guidance=False, device=device)
        return masked(tokens, mask)


class MaskedPrior(PipelinePrior):
    """Conditions are `classes`, or `tokens` with their `mask`. Variances that the network learned are split off."""

    reads = MaskedPromptEncoder

    def denoise(self, x_t: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        x = x_t.to(self.dtype)
        tokens, bias = present_tokens(self.embeddings(condition, x_t.float()))
        output = self.denoiser(
            x,
            encoder_hidden_states=tokens.to(x.dtype),
            encoder_attention_mask=None if bias is None else bias.to(x.dtype),
            timestep=self.heard(self.times[timesteps]),
            **self.beside(x),
        ).sample
        return output[:, : self.latent_shape[0]]

    def heard(self, times: Tensor) -> Tensor:
        """The times as the network hears them."""
        return times

    def beside(self, x: Tensor) -> dict[str, Any]:
        """What the network is told beside prompt and time, by the name of the argument."""
        return {}


class PixArtPrior(MaskedPrior):
    """Networks that hear the size of the image (alpha at 1024 pixels) are told their own, and that it is square."""

    def beside(self, x: Tensor) -> dict[str, Any]:
        return {"added_cond_kwargs": self.sizes(x)}

    def sizes(self, x: Tensor) -> dict[str, Tensor | None]:
        """In pixels `[B, 2]`, and height by width `[B, 1]`, where the network hears them."""
        if not self.denoiser.use_additional_conditions:
            return {"resolution": None, "aspect_ratio": None}
        resolution = x.new_full((len(x), 2), self.autoencoder.size)
        return {"resolution": resolution, "aspect_ratio": x.new_ones(len(x), 1)}
