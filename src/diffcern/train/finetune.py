"""Fine-tuning, of whatever model on whatever data: epochs under a cosine, of which the best one is kept.

Knows nothing about what is learnt: see `finetune_predictor.py` and `finetune_answerer.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from diffcern.errors import DiffcernError, UsageError
from diffcern.files import atomically, reading
from diffcern.methods.base import OPTIMIZERS
from diffcern.rng import generator
from diffcern.train.loop import CHECKPOINT
from diffcern.watching import Report


class Lessons(Protocol):
    """model: whose weights that require a gradient are trained, and all of whose weights are kept. count: of the
    examples to train on, which batches name by number."""

    model: nn.Module
    count: int

    def losses(self, epoch: int, batches: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        """The mean loss of each batch, one by one, a function of the epoch and the batch: between two the weights
        change."""
        ...

    def validation_loss(self) -> float:
        """On examples that are held out, in eval mode; infinite where it is not a number."""
        ...


@dataclass(frozen=True)
class Descent:
    """An optimiser by name under a cosine. ema_decay: of averaged weights, which are the ones that are validated and
    kept; 0 for the weights themselves."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    warmup: float  # fraction of the steps
    clip: float  # gradient norm
    optimizer: str = "adamw"
    momentum: float = 0.9  # of SGD
    ema_decay: float = 0.0

    def __post_init__(self) -> None:
        """Raises UsageError for rates that no optimiser could follow."""
        if not (0 <= self.learning_rate < math.inf and 0 <= self.weight_decay < math.inf):
            raise UsageError(
                f"learning rate and weight decay are finite and at least 0, not {self.learning_rate} and "
                f"{self.weight_decay}"
            )

    def optimizer_of(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        options: dict[str, Any] = {"lr": self.learning_rate, "weight_decay": self.weight_decay}
        if self.optimizer == "sgd":
            options["momentum"] = self.momentum
        return OPTIMIZERS[self.optimizer](parameters, **options)


def fine_tune(lessons: Lessons, descent: Descent, folder: Path, *, seed: int, report: Report) -> list[float]:
    """Leaves the best epoch's weights in the model; the validation losses, before any epoch and after each.

    After every epoch a checkpoint is written into `folder`, and running again goes on from it; an epoch draws its
    batches and dropout from (seed, epoch), so that it ends with the weights of a run that was never stopped. Raises
    DiffcernError where the loss becomes NaN or infinite.
    """
    parameters = [parameter for parameter in lessons.model.parameters() if parameter.requires_grad]
    optimizer = descent.optimizer_of(parameters)
    size = min(descent.batch_size, lessons.count)
    steps = lessons.count // size  # an epoch leaves out what fills no batch
    total = steps * descent.epochs
    rates = get_cosine_schedule_with_warmup(optimizer, int(descent.warmup * total), total)
    parts = {"model": lessons.model, "optimizer": optimizer, "rates": rates}
    averaged = Averaged(parameters, descent.ema_decay)
    if averaged.ema:
        parts["ema"] = averaged.ema
    losses, best = _resume(folder / CHECKPOINT, parts) or ([lessons.validation_loss()], weights_of(lessons.model))
    for epoch in range(len(losses), descent.epochs + 1):
        rng = generator(seed, "fine-tuning", epoch)
        torch.manual_seed(rng.initial_seed())  # dropout and stochastic depth
        batches = torch.randperm(lessons.count, generator=rng)[: steps * size].view(steps, size).tolist()
        for step, loss in enumerate(lessons.losses(epoch, batches)):
            if not torch.isfinite(loss):
                raise DiffcernError(f"the loss is {loss.item()} in epoch {epoch}: give a lower --learning-rate")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, descent.clip)
            optimizer.step()
            rates.step()
            averaged.update()
            report((epoch - 1) * steps + step + 1, total, f"fine-tuning, loss {loss.item():.3f}")
        with averaged:
            losses.append(lessons.validation_loss())
            best = weights_of(lessons.model) if losses[-1] < min(losses[:-1]) else best
        _save(folder / CHECKPOINT, losses, best, parts)
    lessons.model.load_state_dict(best)
    return losses


class Averaged:
    """While it is entered, the parameters are their moving average; decay 0: they are themselves."""

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self._parameters = parameters
        self.ema = EMAModel(parameters, decay=decay, use_ema_warmup=True, power=0.75) if decay else None

    def update(self) -> None:
        if self.ema:
            self.ema.step(self._parameters)

    def __enter__(self) -> None:
        if self.ema:
            self.ema.store(self._parameters)
            self.ema.copy_to(self._parameters)

    def __exit__(self, *raised: object) -> None:
        if self.ema:
            self.ema.restore(self._parameters)


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of them, on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def _save(checkpoint: Path, losses: list[float], best: dict[str, Tensor], parts: dict[str, Any]) -> None:
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    state = {"losses": losses, "best": best, **{name: part.state_dict() for name, part in parts.items()}}
    atomically(checkpoint, lambda partial: torch.save(state, partial))


def _resume(checkpoint: Path, parts: dict[str, Any]) -> tuple[list[float], dict[str, Tensor]] | None:
    """Puts the parts where the checkpoint left them; the losses so far and the best weights. None without one."""
    if not checkpoint.exists():
        return None
    with reading(checkpoint, "Delete it to fine-tune from the start"):
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        return list(state["losses"]), dict(state["best"])
