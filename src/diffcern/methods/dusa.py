"""DUSA (Li et al. 2025, arXiv 2501.00873): mixes noise predictions instead of conditions, at one timestep.

    L = || eps - sum_k p_k eps_phi(z_t, t, c_k) ||^2,    p = softmax over the chosen classes of f(x) / ||f(x)||_2

The denoiser is evaluated without gradient, once per chosen class: the top-k and some random others.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffcern.draws import Draws, draw
from diffcern.errors import UsageError
from diffcern.methods.base import (
    Count,
    Optimizer,
    Weights,
    call,
    descend,
    frozen_view,
    stop,
)
from diffcern.methods.parameters import adaptable_copy, choose_parameters
from diffcern.predictors import Predictor
from diffcern.priors import Prior
from diffcern.rng import generator
from diffcern.tasks import Classification
from diffcern.types import Cost, Inputs, Prediction


class Dusa:
    """Online by default habit, batch 64. Defaults are the paper's: t = 100 of 1000, top-4 + 2 random, Adam 1e-5.

    scale multiplies the normalised logits (1: as published). The answer is the logits from before the step, as in
    TENT: every image is predicted once.
    """

    needs_batch = False

    def __init__(
        self,
        predictor: Predictor,
        prior: Prior,
        task: Classification,
        *,
        timestep: float = 0.1,
        top_k: Count = 4,
        random_k: int = 2,
        scale: float = 1.0,
        optimizer: str = "adam",
        learning_rate: float = 1e-5,
        momentum: float = 0.9,
        parameters: str = "all",
        rows: Count = 256,
    ) -> None:
        if not 0 <= timestep <= 1:
            raise UsageError(f"timestep is a fraction of the prior's range, 0 to 1, not {timestep}")
        if top_k < 1 or random_k < 0 or top_k + random_k > len(task.class_names):
            raise UsageError(f"top_k + random_k must fit the {len(task.class_names)} classes, top_k at least 1")
        self.predictor, self.prior, self.task = adaptable_copy(predictor, parameters), frozen_view(prior), task
        self.timestep, self.top_k, self.random_k, self.scale = timestep, top_k, random_k, scale
        self.optimizer = Optimizer(optimizer, learning_rate, momentum)
        self.parameters, self.rows = parameters, rows

    def init(self) -> Weights:
        return Weights(choose_parameters(self.predictor, self.parameters))

    def step(self, state: Weights, inputs: Inputs, seed: int) -> tuple[Prediction, Weights]:
        latents = self.prior.latents(self.predictor.view(inputs.images))
        leaves, optimizer = self.optimizer.start(state)
        with torch.enable_grad():
            logits = call(self.predictor, leaves, inputs.images)
            chosen = self._choose(logits.detach(), inputs, seed)
            normal = self.scale * logits.float() / logits.float().norm(dim=-1, keepdim=True)
            p = torch.softmax(normal.gather(-1, chosen), -1)  # [B, k]
        draws = draw(
            "uniform",
            1,
            latents,
            inputs.ids,
            seed=seed,
            num_timesteps=self.prior.num_timesteps,
            span=(self.timestep, self.timestep),
        )
        estimates = self._noise_estimates(latents, chosen, draws)  # [B, k, D]
        with torch.enable_grad():
            mixed = (p[..., None] * estimates).sum(1)
            losses = (draws.noise[:, 0].flatten(1).float() - mixed).square().mean(1)
            gradients = torch.autograd.grad(losses.mean(), list(leaves.values()), allow_unused=True)
        descend(leaves, optimizer, gradients)
        costs = [Cost(nfe_forward=chosen.shape[1])] * len(inputs)
        return Prediction(logits.detach(), costs, losses.detach()[:, None].tolist()), stop(leaves, optimizer)

    def _choose(self, logits: Tensor, inputs: Inputs, seed: int) -> Tensor:
        """The top classes and random others of each image, `[B, top_k + random_k]`."""
        order = logits.argsort(dim=-1, descending=True, stable=True)
        others = len(self.task.class_names) - self.top_k
        picks = [torch.randperm(others, generator=generator(seed, "dusa", id))[: self.random_k] for id in inputs.ids]
        random = order[:, self.top_k :].gather(-1, torch.stack(picks).to(order.device))
        return torch.cat([order[:, : self.top_k], random], -1)

    @torch.no_grad()
    def _noise_estimates(self, latents: Tensor, chosen: Tensor, draws: Draws) -> Tensor:
        """eps_phi(z_t, t, c_k) of every image and chosen class, `[B, k, D]`."""
        batch, kept = chosen.shape
        hypotheses = self.task.hypotheses(latents.device)
        timesteps, noise = draws.timesteps[:, 0], draws.noise[:, 0]
        x_t = self.prior.add_noise(latents, timesteps, noise)
        pieces = []
        for rows in torch.arange(batch * kept, device=latents.device).split(self.rows):
            b, k = rows // kept, rows % kept
            pieces.append(self.prior(x_t[b], timesteps[b], hypotheses[chosen[b, k]]).eps.flatten(1))
        return torch.cat(pieces).unflatten(0, (batch, kept))
