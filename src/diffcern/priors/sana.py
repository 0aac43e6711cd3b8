"""Sana in diffusers' format (Xie et al. 2024, arXiv 2410.10629): flow matching by linear attention, Gemma's tokens, and
the latents of a deep-compression autoencoder, 32 pixels a side."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor

from diffcern.errors import DiffcernError
from diffcern.priors.guidance import hears_guidance
from diffcern.priors.masks import masked
from diffcern.priors.pixart import MaskedPrior, MaskedPromptEncoder
from diffcern.types import Condition

INSTRUCTION = "complex_human_instruction"


class InstructedPromptEncoder(MaskedPromptEncoder):
    """As of PixArt, L = 300. In front of each prompt stands the instruction that diffusers' pipeline puts there, of
    whose tokens no more than the first and the last are kept; the empty prompt stands alone, as the pipeline's
    unconditional one."""

    def __init__(self, pipeline: object, rows: int = 64) -> None:
        super().__init__(pipeline, rows)
        assert self.limit is not None
        self.limit -= 1  # the instruction has a place of its own, less two
        self.instruction = inspect.signature(type(pipeline).__call__).parameters[INSTRUCTION].default

    def _embed(self, prompts: list[str], device: torch.device) -> Condition:
        parts: dict[int, Condition] = {}
        for instruction in (self.instruction, None):
            rows = [row for row, prompt in enumerate(prompts) if bool(prompt) == bool(instruction)]
            if rows:
                tokens, mask, *_ = self.pipeline.encode_prompt(
                    [prompts[row] for row in rows],
                    do_classifier_free_guidance=False,
                    device=device,
                    complex_human_instruction=instruction,
                )
                told = masked(tokens, mask)
                parts |= {row: told[place : place + 1] for place, row in enumerate(rows)}
        ordered = [parts[row].parts for row in range(len(prompts))]
        return Condition(**{name: torch.cat([part[name] for part in ordered]) for name in ordered[0]})


class SanaPrior(MaskedPrior):
    """As `MaskedPrior`. Raises DiffcernError for a network that was distilled to a few steps (Sana-Sprint), whose noise
    is that of another family."""

    reads = InstructedPromptEncoder

    def __init__(self, pipeline: object, denoiser: object, guidance: float | None = None) -> None:
        if hears_guidance(denoiser):
            raise DiffcernError("the prior's network is told the guidance, as Sana-Sprint: give a Sana that is not")
        super().__init__(pipeline, denoiser, guidance)

    def heard(self, times: Tensor) -> Tensor:
        return times * self.denoiser.config.timestep_scale
