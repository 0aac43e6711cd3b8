"""Private copies of networks that people have, also of those that Python's deepcopy refuses.

A network may hold what no copy can be made of: a tensor that is part of a graph (the weight that weight_norm and
spectral_norm compute in a forward pass, an activation kept for later), a lock, an open file, a random generator.
Modules, parameters and buffers are copied whatever else there is; what cannot be, is shared. Functions, which deepcopy
takes as they are, become ones of the copy where they hold a part of the model: a hook that keeps an activation in it.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping
from types import CellType, FunctionType
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
            known = dict(memo)
            return _rebound(copy.deepcopy(model, known), known)
        except Exception:  # whatever the objects that it holds raise
            return _rebound(_rebuilt(model, memo), memo)


def _rebound(copied: nn.Module, memo: Memo) -> nn.Module:
    """The copy, whose functions, attributes and hooks, mean the copies of what the originals mean."""
    for module in copied.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, FunctionType):
                vars(module)[name] = _function(value, memo)
            for key, part in list(value.items()) if type(value) in (dict, OrderedDict) else ():  # hooks are such
                if isinstance(part, FunctionType):
                    value[key] = _function(part, memo)
    return copied


def _function(function: FunctionType, memo: Memo) -> FunctionType:
    """The same with the copies in the place of what it has in its closure and defaults; itself where none is copied."""

    def meant(value: Any) -> Any:
        return memo.get(id(value), value)

    if id(function) in memo:
        known: FunctionType = memo[id(function)]
        return known
    memo[id(function)] = function  # it may speak of itself
    try:
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
    except ValueError:  # a variable that has no value yet
        return function
    defaults = tuple(map(meant, function.__defaults__ or ()))
    named = {name: meant(value) for name, value in (function.__kwdefaults__ or {}).items()}
    inner = [_function(value, memo) if type(value) is FunctionType else meant(value) for value in cells]
    held = [*cells, *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    if all(old is new for old, new in zip(held, [*inner, *defaults, *named.values()], strict=True)):
        return function
    closure = tuple(map(CellType, inner)) or None
    rebound = FunctionType(function.__code__, function.__globals__, function.__name__, defaults or None, closure)
    rebound.__kwdefaults__, rebound.__dict__ = named or None, dict(vars(function))
    memo[id(function)] = rebound
    return rebound


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
