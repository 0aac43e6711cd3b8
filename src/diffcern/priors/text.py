"""What priors that read text share: a class is a prompt, and a soft label a mixture of prompts.

`with_labels` embeds the labels' prompts once, and a soft label is their mixture, token by token (Diffusion-TTA, arXiv
2311.16102). Any other text is a condition too: `prompts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from diffcern.labels import Vocabulary
from diffcern.priors.base import Prior
from diffcern.priors.schedule import Schedule
from diffcern.types import Condition


class TextEncoder(Protocol):
    """Reads prompts for a prior, whose copies share it."""

    @property
    def networks(self) -> list[nn.Module]: ...
    @property
    def vocabularies(self) -> list[dict[str, int]]:
        """Of the tokenizers, token to number."""
        ...

    def __call__(self, prompts: Sequence[str], device: torch.device) -> Condition:
        """tokens `[B, L, D]`, L the same for all prompts, and pooled `[B, P]` where the family has one; without a
        gradient. Raises UsageError for a prompt that it cannot read whole."""
        ...


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
    """What reads text. Conditions: `classes` `[B, K]` over the labels, or `tokens` (and `pooled`).

    class_names is empty until `with_labels`. The unconditional condition is the empty prompt. Subclasses implement
    `encode`, `decode` and `denoise`, which asks `embeddings` what to tell the network.
    """

    denoiser: Any  # of diffusers

    def __init__(
        self, denoiser: Any, encoder: TextEncoder, schedule: Schedule, latent_shape: tuple[int, int, int]
    ) -> None:
        super().__init__()
        self.denoiser, self.encoder, self.latent_shape = denoiser, encoder, latent_shape
        self.class_names = ()
        self.set_schedule(schedule)
        self.embed_null()
        self.labels, self.phrases = Table(Condition()), Table(Condition())
        self.owners: tuple[int, ...] = ()
        self.eval().requires_grad_(False)

    def embed_null(self) -> None:
        """Reads the empty prompt; again after the text encoder was trained."""
        self.null = Table(self.null_condition())

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
