"""What every training run shares: a checkpoint to resume from, moving averages, the progress line.

Knows nothing about what is trained: the caller gives a function from a step number to a loss.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from diffcern.claims import changed, listed
from diffcern.errors import DiffcernError
from diffcern.files import atomically, check_folder, reading, writing
from diffcern.train.pace import Pace, counted, peak
from diffcern.train.recipes import Regime
from diffcern.watching import Report, unheard

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class Outcome:
    """Where training stopped: finished, at Ctrl-C or else at the time limit; the averaged loss; its pace, where
    steps were made and Ctrl-C did not end it."""

    finished: bool
    step: int
    loss: float
    interrupted: bool = False
    pace: Pace | None = None


def train(
    model: nn.Module,
    loss_at: Callable[[int], Tensor],
    regime: Regime,
    folder: Path,
    settings: dict[str, object],
    report: Report = unheard,
) -> Outcome:
    """Minimises `loss_at(step)` over the model's parameters with AdamW, and leaves the averaged weights in it.

    `loss_at` must draw its batch and noise from the step number (not from a running generator), so that a resumed
    run sees what an uninterrupted one would have seen. The checkpoint in `folder` is written atomically; running
    again continues from it, unless `settings` differ: then DiffcernError says which. report: hears of every tenth step.
    """
    with writing(folder):
        return _train(model, loss_at, regime, folder, settings, report)


def _train(
    model: nn.Module,
    loss_at: Callable[[int], Tensor],
    regime: Regime,
    folder: Path,
    settings: dict[str, object],
    report: Report,
) -> Outcome:
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, regime.learning_rate, weight_decay=regime.weight_decay)
    warmup = int(regime.warmup * regime.steps)
    rates = get_cosine_schedule_with_warmup(optimizer, warmup, regime.steps)
    ema = EMAModel(parameters, decay=regime.ema_decay, use_ema_warmup=True, power=0.75)
    checkpoint = folder / CHECKPOINT
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        **settings,
        **{k: v for k, v in asdict(regime).items() if k not in ("minutes", "checkpoint_seconds")},
    }
    step, average = _resume(checkpoint, settings, model, optimizer, rates, ema)

    def save() -> None:
        state = {
            "step": step,
            "average": average,
            "settings": json.dumps(settings, sort_keys=True, default=str),
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "rates": rates.state_dict(),
            "ema": ema.state_dict(),
        }
        atomically(checkpoint, lambda partial: torch.save(state, partial))

    start = saved = time.monotonic()
    first, text = step, "training"
    with _interruptible() as interrupted:
        report(step, regime.steps, text)
        while step < regime.steps and time.monotonic() - start < 60 * regime.minutes and not interrupted:
            loss = _slope(loss_at, step)
            nn.utils.clip_grad_norm_(parameters, regime.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            rates.step()
            ema.step(parameters)
            step += 1
            if step == 1 or step % 10 == 0:
                keep = 0.95 if average else 0.0  # over about 200 steps
                average = keep * average + (1 - keep) * loss.item()
                speed = (step - first) * regime.batch_size / (time.monotonic() - start)
                text = f"loss {average:.4f}, {speed:.0f} images/s"
                report(step, regime.steps, text)
            if time.monotonic() - saved > regime.checkpoint_seconds:
                save()
                saved = time.monotonic()
    seconds, pace = time.monotonic() - start, None
    if step > first or not checkpoint.exists():
        save()
    if step > first and not interrupted:  # counted after all is kept: counting changes the rounding
        operations = counted(lambda: _slope(loss_at, step - 1)) * (step - first) / seconds
        pace = Pace((step - first) * regime.batch_size / seconds, operations, peak(parameters[0].device))
        optimizer.zero_grad(set_to_none=True)
    ema.copy_to(parameters)
    finished = step >= regime.steps
    return Outcome(finished, step, average, bool(interrupted) and not finished, pace)


def _slope(loss_at: Callable[[int], Tensor], step: int) -> Tensor:
    """The loss of a step, its gradient left in the parameters."""
    loss = loss_at(step)
    if not torch.isfinite(loss):  # the last checkpoint is left as it is
        raise DiffcernError(f"the loss is {loss.item()} at step {step}: give a lower --learning-rate and another --out")
    loss.backward()
    return loss


def check_out(folder: Path) -> None:
    """Raises DiffcernError unless training may write there: a new or empty folder, or one with its checkpoint."""
    check_folder(folder)
    others = sorted(p.name for p in folder.glob("*") if not p.name.startswith((".", "checkpoint.")))
    if others and not (folder / CHECKPOINT).is_file():
        raise DiffcernError(
            f"{folder} holds {', '.join(others[:3])} and no {CHECKPOINT} to go on from: give another --out"
        )


@contextmanager
def _interruptible() -> Iterator[list[int]]:
    """A list that Ctrl-C fills, so that training stops between two steps and not within one."""
    interrupted: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return
    before = signal.signal(signal.SIGINT, lambda number, frame: interrupted.append(number))
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


def _resume(
    checkpoint: Path,
    settings: dict[str, object],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    rates: torch.optim.lr_scheduler.LRScheduler,
    ema: EMAModel,
) -> tuple[int, float]:
    """Loads the checkpoint if there is one; returns the step to go on from and the loss so far."""
    if not checkpoint.exists():
        return 0, 0.0
    with reading(checkpoint, "Delete it to start again"):
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        before = dict(json.loads(state["settings"]))
    if changes := changed(before, settings):
        raise DiffcernError(
            f"{checkpoint} was made with other settings ({listed(changes)}): use them, or another --out"
        )
    with reading(checkpoint, "Delete it to start again"):
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        rates.load_state_dict(state["rates"])
        ema.load_state_dict(state["ema"])
        ema.to(device=next(model.parameters()).device)
        return int(state["step"]), float(state["average"])
