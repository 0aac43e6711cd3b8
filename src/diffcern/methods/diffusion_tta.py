"""Diffusion-TTA (Prabhudesai et al. 2023, arXiv 2311.16102): the predictor's own output must explain the image.

    L(theta) = E_{t, eps} w(t) || eps - eps_phi(z_t, t, c) ||^2,    c = sum_k p_k e_k,    p = softmax(f_theta(x))

Each update: one predictor forward, d L / d c from the prior with the graph cut at the condition, one backward into
the predictor. The gradient is that of the uncut graph; the published loop runs the predictor for every micro-batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffcern.draws import Draws, check_draws, draw
from diffcern.errors import UsageError
from diffcern.familiarity import DRAWS, asked_strangeness, strangeness, threshold
from diffcern.kinds import DEPTH, KINDS, SEGMENTATION
from diffcern.likelihood import condition_gradient
from diffcern.methods.base import (
    Count,
    Method,
    Optimizer,
    Weights,
    call,
    denoiser_weights,
    descend,
    frozen_view,
    stop,
)
from diffcern.methods.batch_norm import check_batch_norm, with_batch_statistics
from diffcern.methods.gate import mask, rival_z
from diffcern.methods.parameters import adaptable_copy, choose_parameters
from diffcern.methods.published_tta import PUBLISHED, RATES, reads
from diffcern.predictors import Predictor
from diffcern.priors import Prior
from diffcern.priors.blocks import cut_backward
from diffcern.tasks import Task
from diffcern.types import Condition, Cost, Inputs, Prediction
from diffcern.watching import Interim, on_the_way
from diffcern.weightings import weighting as weighting_named

SMALL: dict[str, Any] = {
    "steps": 5,
    "draws": 16,
    "strategy": "stratified",
    "weighting": "x0",
    "optimizer": "sgd",
    "learning_rate": 0.05,
    "temperature": 2.0,
}
SMALL_FOR: dict[str, dict[str, Any]] = {
    SEGMENTATION.name: {"learning_rate": 0.2},
    DEPTH.name: {"optimizer": "adam", "learning_rate": 1e-4, "temperature": 1.0},
}
EVERYWHERE = {"draws": SMALL["draws"], "span": [0.0, 1.0]}  # maps are told at all times


@dataclass(frozen=True)
class TTAState:
    """The adapted weights of the predictor and, where it is adapted too, of the prior."""

    predictor: Weights
    prior: Weights | None = None


class DiffusionTTA(Method):
    """Adapts the predictor (and, if asked, the prior) on each batch; `init()` again for an episode of its own.

    Defaults are the paper's: 5 steps of 180 uniform draws, w = 1, all parameters of the predictor. What they leave
    open (None) is as published for what the prior reads, see `PUBLISHED` and `RATES`: with a class-conditional prior
    or one that reads maps its network moves too, with the same optimiser and rate, with a text prior it does not.
    That takes the memory of its gradients and of the optimiser's state, and fp32. top_k: mix only the k likeliest
    classes of the first prediction, renormalised. resample: fresh draws at each step. parameters: "all", "norm",
    "last" or "lora" (see `methods/parameters.py`). temperature: of the softmax that makes the condition (published:
    1); above 1, a confident and wrong prediction still has a gradient.

    Beyond the paper: gate, a z value; an image takes a step only while moving probability from its top class to
    some rival would lower the loss by more than `gate` standard errors of the sampling noise (per-draw gradients
    give them for free), so that easy images stop after one evaluation, unchanged. familiar, a share (0.99, say); an
    image whose first error is within those of that share of the clean images looks like what the prior (and so the
    predictor) was trained on, and is left to the predictor. Where the draws of a step are fewer, or not of all times,
    that error takes 16 evaluations more, without gradient. batch_statistics: BatchNorm statistics of the batch
    (source_count as in BN-adapt) under the diffusion gradient; needs a batch. cut: this share of the prior's blocks,
    the first ones, is left out of the backward pass, which saves time for a gradient that is a little off.
    """

    small: ClassVar[Mapping[str, Any]] = {**SMALL, "draws": 4, "span": [0.4, 1.0], "adapt_prior": False}
    small_for: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        task: {**options, **EVERYWHERE} for task, options in SMALL_FOR.items()
    }
    tasks = tuple(KINDS)
    added: ClassVar[Mapping[str, Any]] = {"cut": 0.0}

    @classmethod
    def reads_batch(cls, options: Mapping[str, Any]) -> bool:
        return bool(options.get("batch_statistics"))

    def __init__(
        self,
        predictor: Predictor,
        prior: Prior,
        task: Task,
        *,
        steps: Count = 5,
        draws: Count = 180,
        strategy: str = "uniform",
        weighting: str = "eps",
        span: tuple[float, float] = (0.0, 1.0),
        resample: bool = True,
        optimizer: str | None = None,
        learning_rate: float | None = None,
        momentum: float = 0.9,
        parameters: str = "all",
        top_k: int | None = None,
        temperature: float = 1.0,
        adapt_prior: bool | None = None,
        prior_learning_rate: float | None = None,
        gate: float | None = None,
        familiar: float | None = None,
        batch_statistics: bool = False,
        source_count: float = 0.0,
        cut: float = 0.0,
        rows: Count = 64,
    ) -> None:
        if steps < 1:
            raise UsageError(f"steps must be at least 1, not {steps}")
        if top_k is not None and not 1 <= top_k <= len(task.class_names):
            raise UsageError(f"top_k must be between 1 and {len(task.class_names)} classes, not {top_k}")
        if task.kind.dense and (top_k is not None or gate is not None):
            raise UsageError(f"top_k and gate compare classes of an image, and this is {task.name}: leave them out")
        if not task.kind.classes and temperature != 1:
            raise UsageError("temperature softens probabilities, and depth has none: leave it at 1")
        published = PUBLISHED[reads(prior, task)]
        optimizer = published.optimizer if optimizer is None else optimizer
        rate = RATES.get(optimizer, 0.0) if learning_rate is None else learning_rate
        if adapt_prior is None:
            adapt_prior = published.adapt_prior and bool(denoiser_weights(prior))
        if gate is not None and (adapt_prior or draws < 2):
            raise UsageError(
                "gate needs draws of at least 2, and does not combine with adapt_prior, which is as published for "
                "this prior: set adapt_prior=false"
            )
        if adapt_prior and prior.dtype.itemsize < 4:
            raise UsageError(
                f"adapt_prior, as published for this prior, takes steps that {prior.dtype} is too coarse for: give "
                "dtype float32, or set adapt_prior=false"
            )
        check_draws(strategy, draws, span, math.prod(prior.latent_shape))
        weighting_named(weighting)
        self.needs_batch, self.source_count = batch_statistics, source_count
        if batch_statistics:
            check_batch_norm(predictor, "batch_statistics")
        network = with_batch_statistics(predictor, source_count) if batch_statistics else predictor
        self.predictor = adaptable_copy(network, parameters)
        self.prior = frozen_view(prior)
        if cut and task.kind.dense:
            raise UsageError(
                "maps enter a prior before its first block, and cut would end their gradient: leave it at 0"
            )
        if cut and adapt_prior:
            raise UsageError("cut leaves weights of the prior without a gradient: set adapt_prior=false, or cut=0")
        cut_backward(getattr(self.prior, "denoiser", self.prior), cut)
        self.task = task
        self.steps, self.draws, self.strategy, self.weighting = steps, draws, strategy, weighting
        self.span, self.resample, self.parameters, self.top_k = (span[0], span[1]), resample, parameters, top_k
        if temperature <= 0:
            raise UsageError(f"temperature must be above 0, not {temperature}")
        self.temperature = temperature
        self.optimizer = Optimizer(optimizer, rate, momentum)
        prior_rate = rate if prior_learning_rate is None else prior_learning_rate
        self.prior_optimizer = Optimizer(optimizer, prior_rate, momentum) if adapt_prior else None
        self.gate, self.rows = gate, rows
        self.clean_error = None if familiar is None else threshold(prior, familiar)
        self.extra = DRAWS if familiar is not None and (draws < DRAWS or self.span != (0.0, 1.0)) else 0
        self.loaded = f"familiar by {DRAWS} draws of its own" if self.extra else ""  # for runs from before it had them
        self.evaluations = self.extra + steps * draws  # of an image, at most

    def init(self) -> TTAState:
        prior = Weights(denoiser_weights(self.prior)) if self.prior_optimizer else None
        return TTAState(Weights(choose_parameters(self.predictor, self.parameters)), prior)

    def step(self, state: TTAState, inputs: Inputs, seed: int) -> tuple[Prediction, TTAState]:
        latents = self.prior.latents(self.predictor.view(inputs.images))
        leaves, optimizer = self.optimizer.start(state.predictor)
        prior_leaves, prior_optimizer = (
            self.prior_optimizer.start(state.prior) if self.prior_optimizer and state.prior else ({}, None)
        )
        active = torch.ones(len(inputs), dtype=torch.bool, device=latents.device)
        trace: list[list[float]] = [[] for _ in inputs.ids]
        keep = None
        for update in range(self.steps):
            with torch.enable_grad():
                output = call(self.predictor, leaves, inputs.images)
                if self.top_k is not None and keep is None:
                    keep = output.topk(self.top_k, -1).indices
                condition = self.task.condition(output / self.temperature, keep)
            if self.extra and self.clean_error is not None and update == 0:
                first = condition.detach()
                active &= asked_strangeness(self.prior, latents, first, inputs.ids, seed, self.rows) > self.clean_error
                if not active.any():
                    break
            index = active.nonzero().flatten()
            draws = self._draw(latents, [inputs.ids[i] for i in index.tolist()], update, seed)
            gradient = condition_gradient(
                self.prior,
                latents[index],
                condition[index],
                draws,
                weighting=self.weighting,
                rows=self.rows,
                parameters=prior_leaves or None,
            )
            for i, loss in zip(index.tolist(), gradient.loss.tolist(), strict=True):
                trace[i].append(loss)
            on_the_way(partial(_now, output.detach(), keep, trace[0]))
            if self.clean_error is not None and update == 0 and not self.extra:
                active[index] &= strangeness(self.prior, gradient.losses, draws, self.weighting) > self.clean_error
            if self.gate is not None:
                active[index] &= rival_z(gradient.per_draw, condition[index].detach()) > self.gate
            if not active.any():
                break
            gradient = mask(gradient, active[index])
            self._move(leaves, optimizer, condition, gradient.gradient, index, len(inputs))
            if prior_optimizer is not None:
                descend(prior_leaves, prior_optimizer, gradient.parameters.values())
        with torch.no_grad():
            output = _kept(call(self.predictor, leaves, inputs.images), keep)
        spent = [self.draws * len(losses) for losses in trace]
        costs = [Cost(self.extra + count, count) for count in spent]
        after = TTAState(stop(leaves, optimizer), stop(prior_leaves, prior_optimizer) if prior_optimizer else None)
        return Prediction(output, costs, trace), after

    def _draw(self, latents: Tensor, ids: Sequence[str], update: int, seed: int) -> Draws:
        return draw(
            self.strategy,
            self.draws,
            latents,
            ids,
            seed=seed,
            num_timesteps=self.prior.num_timesteps,
            update=update if self.resample else 0,
            span=self.span,
        )

    @staticmethod
    def _move(
        leaves: dict[str, Tensor],
        optimizer: torch.optim.Optimizer,
        condition: Condition,
        gradient: Condition,
        index: Tensor,
        batch: int,
    ) -> None:
        """One optimiser step along d L / d theta = (d L / d c) (d c / d theta), mean over the batch."""
        with torch.enable_grad():
            gradients = torch.autograd.grad(
                [value[index] for value in condition.parts.values()],
                list(leaves.values()),
                [value / batch for value in gradient.parts.values()],
                allow_unused=True,
            )
        descend(leaves, optimizer, gradients)


def _now(output: Tensor, keep: Tensor | None, losses: Sequence[float]) -> Interim:
    """Of the first image, before a step."""
    return Interim(_kept(output, keep)[0], losses[-1] if losses else None)


def _kept(output: Tensor, keep: Tensor | None) -> Tensor:
    """The logits of the classes that are mixed, -inf for the others; all where none was left out."""
    return output if keep is None else torch.full_like(output, -torch.inf).scatter(-1, keep, output.gather(-1, keep))
