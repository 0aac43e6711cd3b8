"""DUSA (Li et al. 2025, arXiv 2501.00873): mixes noise predictions instead of conditions, at one timestep.

    L = || eps - sum_k p_k eps_phi(z_t, t, c_k) ||^2,    p = softmax over the chosen classes of f(x) / ||f(x)||_2

The denoiser is evaluated once per chosen class: the top-k and some others. As published the prior is trained too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.func import functional_call

from diffcern.draws import Draws, draw
from diffcern.errors import DiffcernError, UsageError
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
from diffcern.methods.parameters import adaptable_copy, choose_parameters
from diffcern.predictors import Predictor
from diffcern.priors import Prior
from diffcern.racing import Lane, Rule, race, side_by_side
from diffcern.rng import generator
from diffcern.tasks import Classification
from diffcern.types import Condition, Cost, Inputs, Prediction


@dataclass(frozen=True)
class DusaState:
    """The weights of the predictor and, where it is trained too, of the prior."""

    predictor: Weights
    prior: Weights | None = None


class Dusa(Method):
    """Online by default habit, batch 64. Defaults are the paper's: t = 100 of 1000, top-4 + 2 others, Adam 1e-5.

    others: how the random_k classes are chosen among those below the top, "multinomial" over their softmax (as
    published, of logits that are not normalised: the fifth class is mostly among them) or "uniform". adapt_prior: train
    the prior's network by the same loss, with the same optimiser at prior_learning_rate (None: the same rate), as
    published; false leaves out the backward pass through the denoiser, and with it most of the cost and memory. scale
    multiplies the normalised logits (1: as published). stop "race": before the loss the chosen classes are compared at
    up to `draws` other noises of the same timestep, and those that are behind by z standard errors, or under a risk,
    are left out of it (see `racing.py`; no paper): more classes can be chosen for the backward passes of a few. The
    answer is the logits from before the step, as in TENT: every image is predicted once.
    """

    small: ClassVar[Mapping[str, Any]] = {"adapt_prior": False, "others": "uniform"}
    added: ClassVar[Mapping[str, Any]] = {"stop": "", "z": 2.0, "draws": 8, "risk": None}

    def __init__(
        self,
        predictor: Predictor,
        prior: Prior,
        task: Classification,
        *,
        timestep: float = 0.1,
        top_k: Count = 4,
        random_k: int = 2,
        others: Literal["multinomial", "uniform"] = "multinomial",
        scale: float = 1.0,
        optimizer: str = "adam",
        learning_rate: float = 1e-5,
        momentum: float = 0.9,
        parameters: str = "all",
        adapt_prior: bool = True,
        prior_learning_rate: float | None = None,
        stop: Literal["", "race"] = "",
        z: float = 2.0,
        risk: float | None = None,
        draws: Count = 8,
        rows: Count = 256,
    ) -> None:
        if not 0 <= timestep <= 1:
            raise UsageError(f"timestep is a fraction of the prior's range, 0 to 1, not {timestep}")
        if top_k < 1 or random_k < 0 or top_k + random_k > len(task.class_names):
            raise UsageError(f"top_k + random_k must fit the {len(task.class_names)} classes, top_k at least 1")
        self.predictor, self.prior, self.task = adaptable_copy(predictor, parameters), frozen_view(prior), task
        self.timestep, self.top_k, self.random_k, self.others = timestep, top_k, random_k, others
        self.scale = scale
        self.optimizer = Optimizer(optimizer, learning_rate, momentum)
        self.parameters, self.rows = parameters, rows
        rate = learning_rate if prior_learning_rate is None else prior_learning_rate
        moves = adapt_prior and bool(denoiser_weights(prior))
        self.rule, self.draws = Rule(z, risk=risk) if stop else None, draws if stop else 0
        if self.rule:
            self.rule.check("uniform", draws)
            if moves:
                raise UsageError("a race asks the prior as it was given, and adapt_prior moves it: set one of them off")
        self.evaluations = (1 + self.draws) * (top_k + random_k)
        self.prior_optimizer = Optimizer(optimizer, rate, momentum) if moves else None
        if moves and prior.dtype.itemsize < 4:
            raise UsageError(
                f"adapt_prior, as published, takes steps that {prior.dtype} is too coarse for: give dtype float32, or "
                "set adapt_prior=false"
            )

    def init(self) -> DusaState:
        prior = Weights(denoiser_weights(self.prior)) if self.prior_optimizer else None
        return DusaState(Weights(choose_parameters(self.predictor, self.parameters)), prior)

    def step(self, state: DusaState, inputs: Inputs, seed: int) -> tuple[Prediction, DusaState]:
        latents = self.prior.latents(self.predictor.view(inputs.images))
        leaves, optimizer = self.optimizer.start(state.predictor)
        prior_leaves, prior_optimizer = (
            self.prior_optimizer.start(state.prior) if self.prior_optimizer and state.prior else ({}, None)
        )
        with torch.enable_grad():
            logits = call(self.predictor, leaves, inputs.images)
            chosen = self._choose(logits.detach(), inputs, seed)
            kept, lanes = self._race(latents, chosen, inputs, seed)
            normal = self.scale * logits.float() / logits.float().norm(dim=-1, keepdim=True)
            p = torch.softmax(normal.gather(-1, chosen).masked_fill(~kept, -torch.inf), -1)  # [B, k]
        draws = self._draws(1, latents, inputs.ids, seed)
        noise = draws.noise[:, 0].flatten(1).float()
        estimates, prior_gradients = self._noise_estimates(latents, chosen, kept, draws, p.detach(), prior_leaves)
        with torch.enable_grad():
            losses = (noise - mixture(p, estimates)).square().mean(1)
            gradients = torch.autograd.grad(losses.mean(), list(leaves.values()), allow_unused=True)
        descend(leaves, optimizer, gradients)
        if prior_optimizer is not None:
            descend(prior_leaves, prior_optimizer, prior_gradients)
        costs = [
            Cost(asked + (lane.asked if lane else 0), asked if prior_optimizer else 0)
            for lane, asked in zip(lanes, kept.sum(1).tolist(), strict=True)
        ]
        after = DusaState(stop(leaves, optimizer), stop(prior_leaves, prior_optimizer) if prior_optimizer else None)
        notes = [lane.notes() if lane else {} for lane in lanes]
        return Prediction(logits.detach(), costs, losses.detach()[:, None].tolist(), notes=notes), after

    def _choose(self, logits: Tensor, inputs: Inputs, seed: int) -> Tensor:
        """The top classes and others of each image, `[B, top_k + random_k]`."""
        order = logits.argsort(dim=-1, descending=True, stable=True)
        top, rest = order[:, : self.top_k], order[:, self.top_k :]
        if not self.random_k:
            return top
        likely = logits.float().gather(-1, rest).softmax(-1).cpu()
        weights = likely if self.others == "multinomial" else torch.ones_like(likely)
        picks = [
            torch.multinomial(row.clamp(min=1e-30), self.random_k, generator=generator(seed, "dusa", id))
            for row, id in zip(weights, inputs.ids, strict=True)
        ]
        return torch.cat([top, rest.gather(-1, torch.stack(picks).to(order.device))], -1)

    def _draws(self, count: int, latents: Tensor, ids: Sequence[str], seed: int, update: int = 0) -> Draws:
        """Noises, all at the one timestep."""
        steps, span = self.prior.num_timesteps, (self.timestep, self.timestep)
        return draw("uniform", count, latents, ids, seed=seed, num_timesteps=steps, update=update, span=span)

    def _race(self, latents: Tensor, chosen: Tensor, inputs: Inputs, seed: int) -> tuple[Tensor, Sequence[Lane | None]]:
        """Which of the chosen classes are in the loss, `[B, k]` bool, and the race of each image that said so."""
        if self.rule is None:
            return torch.ones_like(chosen, dtype=torch.bool), [None] * len(inputs)
        hypotheses, lanes = self.task.hypotheses(latents.device), list[Lane]()
        for some in torch.arange(len(inputs)).split(side_by_side(latents, self.draws)):
            draws = self._draws(self.draws, latents[some], inputs.at(some.tolist()).ids, seed, update=1)
            shown = latents[some], hypotheses, draws, self.rule
            lanes += race(self.prior, *shown, candidates=chosen[some].tolist(), rows=self.rows)
        left = [[k in lane.alive for k in row] for row, lane in zip(chosen.tolist(), lanes, strict=True)]
        return torch.tensor(left, device=chosen.device), lanes

    def _noise_estimates(
        self, latents: Tensor, chosen: Tensor, kept: Tensor, draws: Draws, p: Tensor, weights: dict[str, Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """eps_phi(z_t, t, c_k) of every image and chosen class, `[B, k, D]` (0 of one that is not kept), and d L / d
        each of the prior's weights.

        Whole images at a time, so that the loss of a chunk is known with it. Raises DiffcernError where an estimate is
        NaN or infinite.
        """
        (batch, width), hypotheses = chosen.shape, self.task.hypotheses(latents.device)
        timesteps, noise = draws.timesteps[:, 0], draws.noise[:, 0]
        x_t = self.prior.add_noise(latents, timesteps, noise)
        pieces, totals = [], [torch.zeros_like(value) for value in weights.values()]
        for b in torch.arange(batch, device=latents.device).split(max(1, self.rows // width)):
            row, place = kept[b].nonzero(as_tuple=True)
            each = b[row]
            with torch.set_grad_enabled(bool(weights)):
                eps = self._eps(weights, x_t[each], timesteps[each], hypotheses[chosen[each, place]])
                estimates = eps.new_zeros(len(b), width, eps.shape[1]).index_put((row, place), eps)
                if weights:
                    residual = noise[b].flatten(1).float() - mixture(p[b], estimates)
                    loss = residual.square().mean(1).sum() / batch
                    parts = torch.autograd.grad(loss, list(weights.values()), materialize_grads=True)
                    totals = [total + part for total, part in zip(totals, parts, strict=True)]
            pieces.append(estimates.detach())
        return torch.cat(pieces), totals

    def _eps(self, weights: dict[str, Tensor], x_t: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        """`[R, D]`, of the prior with these weights in place of its own."""
        eps = functional_call(self.prior, weights, (x_t, timesteps, condition)).eps.flatten(1)
        if not torch.isfinite(eps).all():
            raise DiffcernError("the prior's estimate is NaN or infinite: in float16, try bfloat16 or float32")
        return eps


def mixture(p: Tensor, estimates: Tensor) -> Tensor:
    """sum_k p_k eps_k: `[B, k]` and `[B, k, D]` -> `[B, D]`."""
    return (p[..., None] * estimates).sum(1)
