"""What every method is: a value with an initial state and a step that answers a batch and returns the next state.

Episodic and online are the same method called with another state: `init()` for every batch, or the one that the
previous step returned. A step never sees a target, and never changes the models it was given.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from diffcern.copies import duplicate
from diffcern.errors import DiffcernError, UsageError, unknown
from diffcern.kinds import CLASSIFICATION
from diffcern.resizing import Images
from diffcern.types import Inputs, Prediction

State = Any  # each method's own; immutable, so that it can be kept, shared and compared


class Method(ABC):
    """What a method declares of itself, each with what holds where it says nothing.

    tasks: rows of `kinds.KINDS` that it is for. needs_batch: it reads statistics of the batch, so that its answer for
    one image depends on the others; one that mixes them with the source's has a source_count above 0, and can answer
    for one image alone. evaluations: how often it asks the denoiser for an image, at most, for whoever waits. loaded:
    the fingerprint of what it loaded itself. small: the options of that preset, see `presets.py`; small_for: those that
    a task has over these. added: options that older versions lacked, each with the value that changes nothing: with
    these, runs that began without them go on. told: whether it tells the prior what is in the image, which then must be
    able to be told.
    """

    tasks: tuple[str, ...] = (CLASSIFICATION.name,)
    needs_batch: bool = False
    small: ClassVar[Mapping[str, Any]] = {}
    small_for: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    added: ClassVar[Mapping[str, Any]] = {}
    source_count: float = 0.0
    told: ClassVar[bool] = True
    evaluations: int = 0
    loaded: str = ""

    @abstractmethod
    def init(self) -> State:
        """The state before any image: the models as they were given."""

    @abstractmethod
    def step(self, state: State, inputs: Inputs, seed: int) -> tuple[Prediction, State]:
        """Answers for the inputs, and the state after them; random numbers are keyed by (seed, id)."""

    @classmethod
    def reads_batch(cls, options: Mapping[str, Any]) -> bool:
        """Whether it needs a batch under these options, as far as they tell (its predictor may have no statistics).
        Those that have an option `statistics` need none with the source's."""
        return cls.needs_batch and options.get("statistics") != "source"

    @classmethod
    def small_options(cls, task: str) -> dict[str, Any]:
        """Those of the preset `small` for a task."""
        return {**cls.small, **cls.small_for.get(task, {})}

    @property
    def answers_alone(self) -> bool:
        """Whether a batch of one image has an answer."""
        return not self.needs_batch or self.source_count > 0


@dataclass(frozen=True)
class Weights:
    """Adapted weights, by parameter name, and the optimiser's state (torch's state dict; None before a step)."""

    parameters: dict[str, Tensor]
    optimizer: dict[str, Any] | None = None


Count = Annotated[int, Field(ge=1)]  # an option that is at least 1, checked where options are read

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}


@dataclass(frozen=True)
class Optimizer:
    """How weights move: a torch optimiser by name. momentum, and whether it is Nesterov's, are SGD's only."""

    name: str
    learning_rate: float
    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        if self.name not in OPTIMIZERS:
            raise unknown("optimizer", self.name, OPTIMIZERS)
        if not 0 <= self.learning_rate < math.inf or not 0 <= self.momentum < 1:
            raise UsageError(
                f"learning_rate is finite and at least 0, momentum in [0, 1), not {self.learning_rate}, {self.momentum}"
            )

    def start(self, weights: Weights) -> tuple[dict[str, Tensor], torch.optim.Optimizer]:
        """Leaf copies of the weights and an optimiser over them that goes on where `weights` stopped."""
        leaves = {name: value.detach().clone().requires_grad_() for name, value in weights.parameters.items()}
        options: dict[str, Any] = {"lr": self.learning_rate}
        if self.name == "sgd":
            options |= {"momentum": self.momentum, "nesterov": self.nesterov and self.momentum > 0}
        optimizer = OPTIMIZERS[self.name](list(leaves.values()), **options)
        if weights.optimizer is not None:
            optimizer.load_state_dict(copy.deepcopy(weights.optimizer))
        return leaves, optimizer


def descend(leaves: dict[str, Tensor], optimizer: torch.optim.Optimizer, gradients: Iterable[Tensor | None]) -> None:
    """One optimiser step along the gradients, given in the order of the leaves; None leaves a weight where it is."""
    for leaf, gradient in zip(leaves.values(), gradients, strict=True):
        leaf.grad = gradient
    optimizer.step()


def stop(leaves: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> Weights:
    """The weights and optimiser state after some updates, as a value."""
    return Weights({name: value.detach() for name, value in leaves.items()}, optimizer.state_dict())


def frozen_copy(model: nn.Module) -> Any:
    """A private copy in eval mode without gradients: the user's module is never touched."""
    return duplicate(model).eval().requires_grad_(False)


def frozen_view(model: nn.Module) -> Any:
    """The same, but sharing the memory of the weights: for priors, which are large and which nothing here changes."""
    view = duplicate(model, shared=True).eval().requires_grad_(False)
    for original, copied in zip(model.modules(), view.modules(), strict=True):
        if original._compiled_call_impl is not None:  # which copying forgets
            copied.compile()
    return view


def denoiser_weights(prior: nn.Module) -> dict[str, Tensor]:
    """Copies of the parameters of a prior's network, by name, without an autoencoder around it."""
    named = prior.named_parameters()
    return {name: value.detach().clone() for name, value in named if name.startswith("denoiser.")}


def call(model: nn.Module, parameters: dict[str, Tensor], images: Images) -> Tensor:
    """The model's finite logits with `parameters` in place of its own.

    Raises DiffcernError when a logit is NaN or infinite, and for one without a gradient where the parameters want it.
    """
    output = functional_call(model, parameters, (images,))
    wanted = any(value.requires_grad for value in parameters.values()) and torch.is_grad_enabled()
    if wanted and not output.requires_grad:
        raise DiffcernError(
            "the predictor's answer has no gradient: its network runs under torch.no_grad, detaches, or computes "
            "outside of torch, and this method moves its weights by one"
        )
    if not torch.isfinite(output).all():
        raise DiffcernError("the predictor's logits are NaN or infinite: check its weights and normalisation")
    return output
