"""Prompts of different lengths in one mixture: how present each token is, in the place of an attention mask.

Some networks (PixArt, Sana) are told which tokens are padding. A mixture of prompts has tokens that only some of them
have, so a condition carries m in [0, 1] for each token, `Condition.mask`, and m e in the place of its embedding e: both
mix linearly, and what the network sees is sum_k p_k m_k e_k / sum_k p_k m_k, to which its attention gives the weight
m exp(q k) in the place of exp(q k). For one prompt, m is 0 or 1, and this is the mask, bit for bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffcern.types import Condition

ABSENT = -10_000.0  # diffusers' bias of what is masked: no weight is left in any precision


def masked(tokens: Tensor, mask: Tensor) -> Condition:
    """A condition of embeddings `[B, L, D]` and an attention mask `[B, L]` of zeros and ones."""
    mask = mask.to(tokens.dtype)
    return Condition(tokens=tokens * mask[..., None], mask=mask)


def present_tokens(condition: Condition) -> tuple[Tensor, Tensor | None]:
    """The embeddings `[B, L, D]` that a network sees, and what its attention adds to their scores, `[B, 1, L]`: log m.

    None without a mask. A token that no prompt has (m = 0) gets no gradient.
    """
    tokens, mask = condition.tokens, condition.mask
    assert tokens is not None  # of a prior that reads text
    if mask is None:
        return tokens, None
    weight = torch.where(mask > 0, mask, 1.0)  # of absent ones neither the quotient nor the logarithm has a derivative
    return tokens / weight[..., None], torch.where(mask > 0, weight.log(), ABSENT)[:, None]
