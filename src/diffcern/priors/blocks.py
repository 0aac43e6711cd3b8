"""The parts that a denoiser is stacked of: compiled one by one, and the first of them left out of the backward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from diffcern.errors import UsageError


def blocks_of(denoiser: Any) -> list[nn.Module]:
    """In the order of the forward pass: a transformer's blocks, or a U-Net's levels; empty where it has neither."""
    if hasattr(denoiser, "transformer_blocks"):
        return [*denoiser.transformer_blocks, *getattr(denoiser, "single_transformer_blocks", ())]  # FLUX has both
    if hasattr(denoiser, "down_blocks") and hasattr(denoiser, "up_blocks"):
        middle = getattr(denoiser, "mid_block", None)
        return [*denoiser.down_blocks, *([] if middle is None else [middle]), *denoiser.up_blocks]
    return []


def compile_regions(denoiser: nn.Module) -> None:
    """torch.compile of what repeats (transformer blocks, in U-Nets too), in place; of the whole where nothing does.

    Blocks of one kind share their code: it is compiled once for all of them, which takes seconds in the place of
    minutes.
    """
    kinds = set(getattr(denoiser, "_repeated_blocks", None) or ())
    kinds |= {type(block).__name__ for block in getattr(denoiser, "transformer_blocks", ())}
    repeated = [module for module in denoiser.modules() if type(module).__name__ in kinds]
    for module in repeated:
        module.register_forward_pre_hook(_contiguous, with_kwargs=True)
    for module in repeated or [denoiser]:
        module.compile()


def _contiguous(block: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
    """What a block is given, laid out in order. Tokens that are cut from an image are not: compiled by torch 2.14,
    their gradient by the condition is NaN, in bfloat16 with AVX-512: see findings/compiled-gradient-of-patches.sh."""

    def ordered(value: Any) -> Any:
        return value.contiguous() if isinstance(value, Tensor) else value

    return tuple(map(ordered, given)), {name: ordered(value) for name, value in named.items()}


def cut_backward(denoiser: nn.Module, share: float) -> None:
    """No gradient by the condition through the first `share` of the blocks (one at least, never all), in place: they
    run without a graph.

    What the condition does there is left out of the gradient. Raises UsageError for a share outside of [0, 1), and for
    a network without blocks.
    """
    if not 0 <= share < 1:
        raise UsageError(f"cut is a share of the blocks from 0 to below 1, not {share}")
    blocks = blocks_of(denoiser)
    if share and not blocks:
        raise UsageError("this prior's network has no blocks to cut: leave cut at 0")
    count = min(len(blocks) - 1, max(1, round(share * len(blocks)))) if share else 0
    for block in blocks[:count]:
        block.forward = torch.no_grad()(block.forward)
