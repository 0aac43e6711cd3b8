"""What a result depends on, told apart by 16 hex digits: models, and plain values."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from diffcern.priors import TextPrior
from diffcern.priors.spatial import Maps


def _ours(part: nn.Module) -> bool:
    return type(part).__module__.startswith("diffcern.")


def fingerprint(module: nn.Module) -> str:
    """16 hex digits over a model, the same on every device: names, dtypes, shapes and bytes.

    That is its state dict, its own buffers and loose tensors (a normalisation, a schedule), the plain attributes of
    it and of all parts that are diffcern's (class names, sizes, a latent's scale), and of a text prior the text
    encoders. What parts deeper down derive when they are built (embeddings of positions or prompts) is left out: it
    varies in the last bits from machine to machine.
    """
    ours = {name: part for name, part in module.named_modules() if part is module or _ours(part)}
    held = {f"{path}.{name}": value for path, part in ours.items() for name, value in _public(part).items()}
    plain: dict[str, Any] = {
        name: value for name, value in held.items() if isinstance(value, str | int | float | tuple)
    }
    plain |= {name: asdict(value) for name, value in held.items() if isinstance(value, Maps)}
    loose = {name: value for name, value in _public(module).items() if isinstance(value, Tensor)}
    tensors = {**loose, **dict(module.named_buffers(recurse=False)), **module.state_dict()}
    if isinstance(module, TextPrior):
        plain["tokenizers"] = module.encoder.vocabularies
        for number, network in enumerate(module.encoder.networks):
            tensors |= {f"text{number}.{name}": value for name, value in network.state_dict().items()}
    result = hashlib.blake2b(digest(plain).encode(), digest_size=8)
    for name, tensor in sorted(tensors.items()):
        result.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        result.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().data)
    return result.hexdigest()


def _public(module: nn.Module) -> dict[str, Any]:
    """The attributes that a module holds itself, without torch's own."""
    return {name: value for name, value in vars(module).items() if not name.startswith("_") and name != "training"}


def digest(value: Any) -> str:
    """16 hex digits over a value made of dictionaries, sequences, strings and numbers."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def content_id(image: Tensor) -> str:
    """A name for an image made of its pixels."""
    return hashlib.blake2b(image.detach().float().cpu().contiguous().numpy().tobytes(), digest_size=8).hexdigest()
