"""Private copies of networks that people have, also of those that Python's deepcopy refuses.

A network may hold what no copy can be made of: a tensor that is part of a graph (the weight that weight_norm and
spectral_norm compute in a forward pass, an activation kept for later), a lock, an open file, a random generator.
Modules, parameters and buffers are copied whatever else there is; what cannot be, is shared.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Memo = dict[int, Any]  # of deepcopy: what stands for an object, by its id


def duplicate(model: nn.Module, shared: bool = False) -> Any:
    """A copy of the model that has its own modules, parameters and buffers; the model is not changed.

    shared: in the memory of the original's parameters and buffers. Tensors that are part of a graph are cut off it.
    """
    tensors = (*model.parameters(), *model.buffers())
    with torch.no_grad(), _Graphless():  # TorchScript clones its parameters, as part of a graph
        memo: Memo = {id(tensor): _twin(tensor, shared) for tensor in tensors}
        try:
            return copy.deepcopy(model, dict(memo))
        except Exception:  # whatever the objects that it holds raise
            return _rebuilt(model, memo)


def _twin(tensor: Tensor, shared: bool) -> Tensor:
    if not shared:
        return copy.deepcopy(tensor)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(tensor.detach(), requires_grad=False)
    return tensor.detach()


class _Graphless(TorchFunctionMode):
    """Copies tensors that are part of a graph as if they were not, where torch refuses to."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            return memo.setdefault(id(tensor), tensor.detach().clone())
        return func(*args, **(kwargs or {}))


def _rebuilt(model: nn.Module, memo: Memo) -> nn.Module:
    """The model's modules one by one, with a copy of all that they hold but what cannot be copied."""
    modules = list(model.modules())
    memo |= {id(module): object.__new__(type(module)) for module in modules if not _own_copy(module)}
    for module in modules:
        if _own_copy(module):  # a TorchScript or FX module: more than its attributes
            memo[id(module)] = copy.deepcopy(module, dict(memo))
    for module in modules:
        if not _own_copy(module):
            memo[id(module)].__dict__.update({name: _attempt(value, memo) for name, value in vars(module).items()})
    rebuilt: nn.Module = memo[id(model)]
    return rebuilt


def _own_copy(module: nn.Module) -> bool:
    return hasattr(type(module), "__deepcopy__") and not hasattr(module, "parametrizations")


def _attempt(value: Any, memo: Memo) -> Any:
    """A copy of the value, else of its parts where it is a list, a tuple or a dictionary, else itself."""
    known = dict(memo)  # an attempt that fails leaves half-made things in it
    try:
        copied = copy.deepcopy(value, known)
    except Exception:
        if type(value) is dict:
            return {name: _attempt(part, memo) for name, part in value.items()}
        return type(value)(_attempt(part, memo) for part in value) if type(value) in (list, tuple) else value
    memo |= known
    return copied
