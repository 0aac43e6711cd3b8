"""Which parameters of a predictor are adapted: all, those of normalisation layers, the last layer, or LoRA's; or those
that the published code of Diffusion-TTA happens to reach."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from diffcern.errors import DiffcernError, UsageError, unknown
from diffcern.methods.base import frozen_copy

PARAMETER_CHOICES = ("all", "norm", "last", "lora", "published")
RANK = 8  # of LoRA's updates


def adaptable_copy(model: nn.Module, which: str) -> Any:
    """A private copy, frozen; for "lora" with adapters that answer like the model until they are trained.

    Weights in half precision become fp32: in theirs, most updates would be rounded away.
    """
    copied = frozen_copy(model)
    if any(p.dtype in (torch.float16, torch.bfloat16) for p in copied.parameters()):
        copied = copied.float()
    return _with_lora(copied) if which == "lora" else copied


def choose_parameters(model: nn.Module, which: str) -> dict[str, Tensor]:
    """The parameters to adapt, by name: "all", "norm" (affine of normalisation layers), "last" (last linear layer),
    "lora" (of an `adaptable_copy`), "published" (of modules without parts, but for the last linear layer: that code
    passes over parameters beside a module's parts, such as attention's in_proj, layer scale and embeddings).

    Raises UsageError for another choice and DiffcernError when the model has none of the kind.
    """
    if which not in PARAMETER_CHOICES:
        raise unknown("parameter choice", which, PARAMETER_CHOICES)
    chosen = dict(model.named_parameters())
    if which == "norm":
        chosen = {
            f"{name}.{key}": value
            for name, module in model.named_modules()
            if "norm" in type(module).__name__.lower()
            for key, value in module.named_parameters(recurse=False)
        }
    elif which == "last":
        chosen = {name: value for name, value in chosen.items() if _is_last(model, name)}
    elif which == "published":
        leaves = {name for name, module in model.named_modules() if not any(module.children())}
        chosen = {
            name: value
            for name, value in chosen.items()
            if name.rpartition(".")[0] in leaves and not _is_last(model, name)
        }
    elif which == "lora":
        chosen = {name: value for name, value in chosen.items() if ".lora_" in name}
    if not chosen:
        raise DiffcernError(
            f"the predictor has no parameters of the kind {which!r} to adapt: set parameters to another one"
        )
    return {name: value.detach().clone() for name, value in chosen.items()}


def _is_last(model: nn.Module, name: str) -> bool:
    """Whether a parameter is one of the last linear layer's."""
    layers = [layer for layer, module in model.named_modules() if isinstance(module, nn.Linear)]
    return bool(layers) and name.rpartition(".")[0] == layers[-1]


def _with_lora(model: nn.Module) -> nn.Module:
    """Adds W + (2 / rank) B A to every linear layer of the attention, in place; B starts at 0, so nothing changes yet
    (Hu et al. 2022, arXiv 2106.09685).

    Raises DiffcernError for a model without such layers, UsageError where peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model  # optional, and slow to import
    except ImportError as error:
        raise UsageError("parameters = 'lora' needs peft: pip install 'diffcern[lora]'") from error
    layers = [
        f"{name}.{inner}"
        for name, module in model.named_modules()
        if "attention" in type(module).__name__.lower() and not isinstance(module, nn.MultiheadAttention)
        for inner, layer in module.named_modules()
        if isinstance(layer, nn.Linear)
    ]
    if not layers:
        raise DiffcernError(
            "the predictor has no attention with linear layers for LoRA: adapt 'all', 'norm' or 'last' instead"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of A; the adapters are the same on every run
        device = next(model.parameters()).device
        config = LoraConfig(r=RANK, lora_alpha=2, target_modules=sorted(set(layers)))
        return inject_adapter_in_model(config, model.cpu()).to(device).requires_grad_(False)
