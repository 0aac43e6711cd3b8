"""Adversarial images: how much of a defence is left where whoever chooses the image knows all of it.

PGD (Madry et al. 2018, arXiv 1706.06083) on the expectation over the defence's own noise (EOT; Athalye et al. 2018,
arXiv 1802.00420; against purification Lee & Kim 2023, arXiv 2303.09020):

    g = (1/E) sum_e grad_x -log p(y | x; noise_e)        x <- P(x + step_size sign g)        for L_inf
                                                         x <- P(x + step_size g / ||g||_2)   for L2

P brings x back to within `radius` of the image, and into [0, 1]. Attacks see the label: nothing here is a method, and
what survives an attack is no proof that it survives another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

from diffcern.adapted import check_images
from diffcern.draws import draw
from diffcern.errors import UsageError
from diffcern.likelihood import errors_of
from diffcern.methods.base import Method, call
from diffcern.methods.diffusion_classifier import DiffusionClassifier
from diffcern.methods.purified import Purified
from diffcern.predictors import Predictor
from diffcern.resizing import views_of
from diffcern.rng import generator
from diffcern.sampling import purify
from diffcern.types import Inputs

Pixels = Float[Tensor, "batch 3 rows columns"]
Labels = Int[Tensor, " batch"]
Target = Callable[[Pixels, Sequence[str], int], Tensor]  # images, ids that key the noise, seed -> logits [B, K]
Norm = Literal["linf", "l2"]
Backward = Literal["exact", "identity"]


@dataclass(frozen=True)
class PGD:
    """Images `[B, 3, H, W]` within `radius` of those given, in [0, 1], on which a target answers wrongly.

    radius, step_size: in the norm, of pixels in [0, 1]. draws: E, evaluations of the target for each gradient, each
    with noise of its own. restarts: begin at other points of the ball; of their ends an image keeps the one of
    highest loss, by E further evaluations. Raises UsageError for settings out of range.
    """

    radius: float = 8 / 255
    step_size: float = 2 / 255
    norm: Norm = "linf"
    steps: int = 20
    draws: int = 1
    restarts: int = 1

    def __post_init__(self) -> None:
        if self.norm not in get_args(Norm):
            raise UsageError(f"norm is {' or '.join(get_args(Norm))}, not {self.norm!r}")
        if not 0 < self.radius < torch.inf or not 0 < self.step_size < torch.inf:
            raise UsageError(f"radius and step_size are above 0, not {self.radius} and {self.step_size}")
        if min(self.steps, self.draws, self.restarts) < 1:
            raise UsageError("steps, draws and restarts are at least 1")

    def __call__(self, target: Target, images: Pixels, labels: Labels, ids: Sequence[str], seed: int = 0) -> Pixels:
        """labels: the true ones, indices of the target's classes; ids key all random numbers of an image.

        Raises UsageError for images that are none in [0, 1], another number of labels or ids, and for a target whose
        answer has no gradient.
        """
        check_images(images)
        if not len(images) == len(labels) == len(ids):
            raise UsageError(f"one label and id for each image: {len(images)}, {len(labels)} and {len(ids)}")
        worst, highest = images, torch.full((len(images),), -torch.inf, device=images.device)
        for restart in range(self.restarts):
            rngs = [generator(seed, "attack", id, restart) for id in ids]
            x = self.project(images + self.beginning(images, rngs), images)
            for step in range(self.steps):
                gradient = self.ascent(target, x, labels, [f"{id}/{restart}/{step}" for id in ids], seed)[1]
                x = self.project(x + self.step_size * self.direction(gradient), images)
            loss = self.ascent(target, x, labels, [f"{id}/{restart}/end" for id in ids], seed)[0]
            worse = loss > highest
            worst, highest = torch.where(worse[:, None, None, None], x, worst), torch.where(worse, loss, highest)
        return worst

    def ascent(
        self, target: Target, x: Pixels, labels: Labels, ids: Sequence[str], seed: int
    ) -> tuple[Float32[Tensor, " batch"], Pixels]:
        """The mean of -log p(y | x) over `draws` noises, and its gradient by the pixels of each image."""
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            drawn = [f"{id}/attack{draw}" for id in ids for draw in range(self.draws)]
            logits = target(leaf.repeat_interleave(self.draws, 0), drawn, seed)
            chosen = labels.repeat_interleave(self.draws)
            losses = torch.nn.functional.cross_entropy(logits.float(), chosen, reduction="none")
            losses = losses.view(len(x), self.draws).mean(1)
            given = torch.autograd.grad(losses.sum(), leaf, allow_unused=True) if losses.requires_grad else (None,)
        if given[0] is None:
            raise UsageError("the target's answer has no gradient by the image: attack a differentiable form of it")
        return losses.detach(), given[0]

    def beginning(self, images: Pixels, rngs: Sequence[torch.Generator]) -> Pixels:
        """A point of the ball around 0 for each image, uniformly."""
        shape, size = images.shape[1:], images[0].numel()
        if self.norm == "linf":
            drawn = torch.stack([2 * torch.rand(shape, generator=rng) - 1 for rng in rngs])
        else:
            ways = self.direction(torch.stack([torch.randn(shape, generator=rng) for rng in rngs]))
            share = torch.stack([torch.rand((), generator=rng) for rng in rngs]) ** (1 / size)
            drawn = ways * share[:, None, None, None]
        return self.radius * drawn.to(images.device)

    def direction(self, gradient: Pixels) -> Pixels:
        """The steepest step of length 1 in the norm; none where there is no gradient."""
        if self.norm == "linf":
            return gradient.sign()
        return gradient / length(gradient).clamp(min=1e-12)

    def project(self, x: Pixels, images: Pixels) -> Pixels:
        """P: into the ball around the images, then into [0, 1], which for these convex sets leaves x in both."""
        change = x - images
        if self.norm == "linf":
            change = change.clamp(-self.radius, self.radius)
        else:
            change = change * (self.radius / length(change).clamp(min=self.radius))
        return (images + change).clamp(0, 1)


def length(change: Pixels) -> Float[Tensor, "batch 1 1 1"]:
    """The L2 norm of each image."""
    return change.flatten(1).norm(dim=1)[:, None, None, None]


def undefended(predictor: Predictor) -> Target:
    """The predictor alone: what an attack sees that does not know of the defence."""
    return lambda images, ids, seed: call(predictor, {}, images)


def through(method: Purified, backward: Backward = "exact") -> Target:
    """The answer on one purified copy, as `method` gives it, with a gradient back to the image.

    backward: "exact", through encoder, noise, every step of the solver, decoder and predictor; or "identity", which
    takes noising and denoising for the identity in latents (BPDA, Athalye et al. 2018, arXiv 1802.00420).
    Raises UsageError where the method answers by more than that: a guide, a start by the image, an ensemble, skip.
    """
    purifier, route = method.purifier, method.purifier.route
    if backward not in get_args(Backward):
        raise UsageError(f"backward is {' or '.join(get_args(Backward))}, not {backward!r}")
    if purifier.guide is not None or route.start == "auto" or method.ensemble != "none" or method.skip is not None:
        raise UsageError(
            "an attack through a purifier is on one without a guide, from a given timestep, whose answer is that on "
            "the purified image: give diffpure, a number as start, ensemble none, and no skip"
        )
    exact = backward == "exact"

    def target(images: Pixels, ids: Sequence[str], seed: int) -> Tensor:
        latents = purifier.prior.latents(method.predictor.view(images))
        with torch.set_grad_enabled(exact):
            purified = purify(
                purifier.prior, latents, ids, seed=seed, rows=purifier.rows, differentiable=exact, **vars(route)
            )
        if not exact:
            purified = latents + (purified - latents).detach()
        return call(method.predictor, {}, method.predictor.of_view(purifier.prior.decode(purified)))

    return target


def scored(method: DiffusionClassifier, draws: int) -> Target:
    """Diffusion Classifier's scores of all classes from `draws` draws each, with a gradient back to the image.

    Stages, races and shortlists only spare evaluations, and are left out; draws are spread over the times that a race
    begins with. For each class its best prompt counts, as the method has it.
    """
    prior, span = method.prior, method.rule.first if method.rule else method.span
    strategy = "stratified" if method.rule else method.strategy

    def target(images: Pixels, ids: Sequence[str], seed: int) -> Tensor:
        latents = prior.latents(views_of(images, method.view))
        drawn = draw(strategy, draws, latents, ids, seed=seed, num_timesteps=prior.num_timesteps, span=span)
        shape = (len(latents), len(method.hypotheses), draws)
        b, k, m = torch.unravel_index(torch.arange(math.prod(shape), device=latents.device), shape)
        asking = {**method.asking, "differentiable": True}
        errors = errors_of(prior, latents, method.hypotheses, drawn, (b, k, m), **asking)
        means = errors.view(shape).mean(-1)
        least = means.new_full((len(means), method.classes), torch.inf)
        best = least.scatter_reduce(1, method.owners.expand(len(means), -1), means, "amin")
        return -latents[0].numel() * best / method.temperature

    return target


def evaluations(method: Method, inputs: Inputs, count: int, seed: int = 0) -> Float[Tensor, "count batch classes"]:
    """What a method answers to each image, asked `count` times with noise of its own: probabilities.

    An attack on a random defence has failed only if all of these are right (Kassis et al. 2024, arXiv 2411.16598);
    `methods.purified.voted` makes the majority's answer of them.
    """
    answers = []
    for number in range(count):
        asked = Inputs(inputs.images, [f"{id}/evaluation{number}" for id in inputs.ids])
        answers.append(method.step(method.init(), asked, seed)[0].output.softmax(-1))
    return torch.stack(answers)
