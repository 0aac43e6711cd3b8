"""Matching examples through a text-to-image prior: one row each, with every error."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from diffcern.data.base import UnreadableImage, readable
from diffcern.data.pairs import MatchingExample, Pairs
from diffcern.draws import draw
from diffcern.errors import UsageError
from diffcern.likelihood import score
from diffcern.priors import TextPrior
from diffcern.tasks.matching import matches
from diffcern.types import Condition


def match_rows(
    pairs: Pairs,
    prior: TextPrior,
    *,
    draws: int,
    strategy: str,
    weighting: str,
    norm: str,
    seed: int,
    done: set[str],
    rows: int = 64,
) -> Iterator[dict[str, Any]]:
    """Rows with the errors of every image under every caption and under none, and what they get right.

    All captions and all images of an example meet the same draws, so that differences vary least. done: ids to leave
    out.
    """
    for example in readable(pairs, skip=done):
        if isinstance(example, UnreadableImage):
            yield {"id": example.name, "error": example.reason}
            continue
        begin = time.perf_counter()
        latents = torch.cat([prior.encode(image[None].to(prior.device)) for image in example.images])
        sample = draw(
            strategy, draws, latents, [example.id] * len(latents), seed=seed, num_timesteps=prior.num_timesteps
        )
        try:
            hypotheses = _hypotheses(prior, example)
        except UsageError as error:  # a caption that is too long for the prior
            yield {"id": example.id, "error": str(error)}
            continue
        errors = score(prior, latents, hypotheses, sample, weighting=weighting, norm=norm, rows=rows).mean.cpu()
        yield {
            "id": example.id,
            **matches(errors[:, :-1], errors[:, -1]),
            **example.tags,
            "captions": list(example.captions),
            "errors": _rounded(errors[:, :-1]),
            "unconditional": _rounded(errors[:, -1]),
            "nfe_forward": errors.numel() * draws,
            "seconds": round(time.perf_counter() - begin, 4),
            "error": None,
        }


def _hypotheses(prior: TextPrior, example: MatchingExample) -> Condition:
    """The captions, and no caption last."""
    captions, null = prior.prompts(example.captions), prior.null.rows
    return Condition(**{name: torch.cat([value, null.parts[name]]) for name, value in captions.parts.items()})


def _rounded(errors: Tensor) -> Any:
    """As nested lists, with the digits that fp32 has."""
    return [_rounded(row) for row in errors] if errors.ndim else float(f"{errors.item():.7g}")
