"""What a network answers with, as one tensor: other libraries put it into dictionaries, tuples, ModelOutputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diffcern.errors import UsageError
from diffcern.kinds import Kind

MANY = 10
HALF = (torch.float16, torch.bfloat16)


def input_dtype(model: nn.Module) -> torch.dtype:
    """The precision that a network takes its images in: of its first floating-point parameter or buffer."""
    for tensors in (model.parameters(), model.buffers()):
        found = next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), None)
        if found is not None:
            return found
    return torch.float32


def answer_of(output: Any, kind: Kind, classes: int, batch: int, first: bool = True) -> Tensor:
    """The answer in what a network gave for `batch` images: logits `[B, K]`, `[B, K, h, w]` or a map `[B, h, w]`.

    A tensor; of a mapping (a ModelOutput too) what is called as usual, else its only tensor that may be the answer; of
    a tuple that tensor. Half precision becomes fp32. Raises UsageError, which says what there was, where nothing may
    be it or several may, for another number of outputs than of classes, and (looked for in the first answer) for a
    softmax's probabilities.
    """
    if isinstance(output, Tensor):
        found = output
    elif isinstance(output, Mapping):
        key = next((key for key in kind.keys if isinstance(output.get(key), Tensor)), None)
        found = output[key] if key is not None else _only(output, kind, classes, batch)
    elif isinstance(output, Sequence) and not isinstance(output, str):
        found = _only(dict(enumerate(output)), kind, classes, batch)
    else:
        raise UsageError(
            f"the network answers with a {type(output).__name__}, where {kind.output} is wanted: {_wrap()}"
        )
    if not kind.classes and found.ndim == kind.axes + 1 and found.shape[1] == 1:
        found = found[:, 0]
    _check(found, kind, classes, batch)
    if first and kind.classes:
        _refuse_probabilities(found.detach())
    return found.float() if found.dtype in HALF else found


def _only(parts: Mapping[Any, Any], kind: Kind, classes: int, batch: int) -> Tensor:
    """The tensor among the parts that has the shape of an answer."""
    tensors = {name: value for name, value in parts.items() if isinstance(value, Tensor)}
    fitting = [value for value in tensors.values() if _fits(value, kind, classes, batch)]
    if len(fitting) == 1:
        return fitting[0]
    shapes = ", ".join(f"{name}: {list(value.shape)}" for name, value in tensors.items()) or "no tensor"
    many = "several parts" if fitting else "no part"
    raise UsageError(f"{many} of what the network answers with may be {kind.output} ({shapes}): {_wrap()}")


def _fits(value: Tensor, kind: Kind, classes: int, batch: int) -> bool:
    if kind.classes:
        return value.ndim == kind.axes and tuple(value.shape[:2]) == (batch, classes)
    return value.ndim == kind.axes or (value.ndim == kind.axes + 1 and value.shape[1] == 1)


def _check(found: Tensor, kind: Kind, classes: int, batch: int) -> None:
    shape = list(found.shape)
    if _fits(found, kind, classes, batch) and len(found) == batch:
        return
    if kind.classes and found.ndim == kind.axes and len(found) == batch:
        hint = ""
        if shape[1] == 1:
            hint = ". A sigmoid's one output z is two logits: torch.cat([-z / 2, z / 2], 1)"
        elif shape[1] == classes + 1:
            hint = ", a background class too, which `restrict` leaves out"
        raise UsageError(
            f"the network has {shape[1]} outputs and the predictor {classes} class names: name as many classes, in the "
            f"order of the outputs{hint}"
        )
    raise UsageError(f"for {batch} images the network answers with {shape}, where {kind.output} is wanted: {_wrap()}")


def _refuse_probabilities(found: Tensor) -> None:
    """Raises UsageError for what is a softmax's already (adding up to 1), which another would flatten, and for what is
    a sigmoid's (all of `MANY` numbers in [0, 1]).

    Logits are so by chance about once in 10^5 times, and less with more classes and images.
    """
    hard = bool(((found == 0) | (found == 1)).all())  # a rule's answer, or no answer yet
    if found.shape[1] < 2 or hard or not bool(((found >= 0) & (found <= 1)).all()):
        return
    if found.numel() >= MANY and found.shape[1] > 2 and bool((found.float().sum(1) - 1).abs().max() > 0.1):
        raise UsageError(
            "the network answers with numbers in [0, 1], as a sigmoid does of classes that do not exclude each other, "
            "where logits are wanted: leave its last sigmoid out, or wrap it in a module that returns their torch.logit"
        )
    if (found.float().sum(1) - 1).abs().max() < (2e-3 if found.dtype in HALF else 1e-5):
        raise UsageError(
            "the network answers with probabilities (they add up to 1), where logits are wanted, of which the softmax "
            "is taken here: leave its last softmax out, or wrap it in a module that returns their logarithm"
        )


def _wrap() -> str:
    return "wrap it in a module that returns that alone"
