"""What methods that purify images share: two answers, to the image and to the purified one, and how they are joined."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from diffcern.errors import UsageError
from diffcern.kinds import KINDS
from diffcern.methods.base import Method, frozen_view
from diffcern.predictors import Predictor
from diffcern.purifier import Purifier
from diffcern.tasks import TASKS
from diffcern.tasks.base import resized
from diffcern.types import Cost, Inputs, Prediction
from diffcern.watching import Interim, on_the_way

Ensemble = Literal["none", "sum", "entropy", "confidence", "confidence-sum"]
Vote = Literal["mean", "majority"]


def join(source: Tensor, purified: Tensor, ensemble: Ensemble) -> Tensor:
    """Of probabilities `[B, K, ...]` before and after purification one answer, of the same shape.

    "none": after; "sum": the mean; "entropy": whichever has the lower entropy; "confidence": whichever has the higher
    highest probability; "confidence-sum": the mean weighted by these (both by their published names).
    """
    if ensemble == "none":
        return purified
    if ensemble == "sum":
        return (source + purified) / 2
    if ensemble == "entropy":
        calmer = entropy(source) <= entropy(purified)
        return torch.where(calmer[:, None], source, purified)
    weight, other = (p.amax(1, keepdim=True) for p in (source, purified))
    if ensemble == "confidence":
        return torch.where(weight >= other, source, purified)
    return (weight * source + other * purified) / (weight + other)


def voted(answers: Tensor, vote: Vote) -> Tensor:
    """One answer `[B, ...]` of those to N purified copies `[N, B, ...]`, probabilities `[N, B, K, ...]` or depth.

    "mean": of probabilities; "majority": the share of copies for each class, as one of N + 1 the mean, by which equal
    shares are told apart.
    """
    mean = answers.mean(0)
    if vote == "mean":
        return mean
    votes = torch.zeros_like(answers).scatter_(2, answers.argmax(2, keepdim=True), 1.0).sum(0)
    return (votes + mean) / (len(answers) + 1)


def entropy(p: Tensor) -> Tensor:
    """`[B, ...]` of probabilities `[B, K, ...]`, in nats."""
    return torch.special.entr(p).sum(1)


class Purified(Method):
    """What DiffPure, DDA, GDA and SDA share: two answers, to the image and to the purified one, joined.

    before, after: the methods that give them, each for its own episode. predictor: of the first; what it looks at is
    purified, and of that nothing more is cut off. copies: of each image, purified with noise of their own, of whose
    answers `voted` makes one. skip: above this confidence of the first (the mean over pixels) an image is not purified
    at all.
    """

    tasks: tuple[str, ...] = tuple(KINDS)

    def __init__(
        self,
        before: Method,
        after: Method,
        predictor: Predictor,
        purifier: Purifier,
        ensemble: Ensemble,
        skip: float | None,
        copies: int = 1,
        vote: Vote = "mean",
    ) -> None:
        task = TASKS[predictor.task]
        if skip is not None and not 0 < skip <= 1:
            raise UsageError(f"skip is a confidence in (0, 1], not {skip}")
        if not task.kind.classes and (skip is not None or ensemble not in ("none", "sum") or vote != "mean"):
            raise UsageError("depth has no confidence: leave skip out, and give ensemble none or sum, vote mean")
        self.before, self.after, self.predictor, self.task = before, after, frozen_view(predictor), task
        self.purifier, self.ensemble, self.skip, self.copies, self.vote = purifier, ensemble, skip, copies, vote
        each = purifier.evaluations + after.evaluations
        self.evaluations = before.evaluations + copies * each  # of an image, at most

    def init(self) -> None:
        """No state: every answer rests on the models as given."""

    @torch.no_grad()
    def step(self, state: None, inputs: Inputs, seed: int) -> tuple[Prediction, None]:
        if self.ensemble == "none" and self.skip is None:  # the image itself is not asked about
            purified, costs = self._purified(inputs, seed)
            return self._prediction(purified, costs), None
        first = self.before.step(self.before.init(), inputs, seed)[0]
        answer, costs = self.task.to_average(first.output), list(first.costs)
        index = torch.arange(len(inputs), device=answer.device)
        if self.skip is not None:
            index = index[answer.amax(1).reshape(len(inputs), -1).mean(1) <= self.skip]
        if len(index):
            chosen = index.tolist()
            purified, spent = self._purified(inputs.at(chosen), seed)
            answer[index] = join(answer[index], purified, self.ensemble)
            for i, cost in zip(chosen, spent, strict=True):
                costs[i] = costs[i] + cost
        return self._prediction(answer, costs), None

    def _purified(self, inputs: Inputs, seed: int) -> tuple[Tensor, list[Cost]]:
        """The answers after purification, and what both took."""
        answers, costs = self._copy(inputs, inputs.ids, seed)
        if self.copies == 1:
            return answers, costs
        found = [answers]
        for number in range(1, self.copies):
            answers, more = self._copy(inputs, [f"{id}/copy{number}" for id in inputs.ids], seed)
            found.append(answers)
            costs = [a + b for a, b in zip(costs, more, strict=True)]
        return voted(torch.stack(found), self.vote), costs

    def _copy(self, inputs: Inputs, ids: Sequence[str], seed: int) -> tuple[Tensor, list[Cost]]:
        """ids: by which this copy's noise is keyed."""
        seen = self.predictor.view(inputs.images)
        paths = self.purifier.paths(seen, ids, seed)
        images = self.predictor.of_view(self.purifier(seen, ids, seed, paths))
        if self.task.kind.dense:  # a map is answered in the size of its image
            images = resized(images, (inputs.images[0].shape[-2], inputs.images[0].shape[-1]))
        on_the_way(partial(Interim, image=images[0]))
        second = self.after.step(self.after.init(), Inputs(images, list(ids)), seed)[0]
        through = self.purifier.guide is not None and self.purifier.guide.through
        purifying = [Cost(path.evaluations, path.evaluations if through else 0) for path in paths]
        return self.task.to_average(second.output), [a + b for a, b in zip(purifying, second.costs, strict=True)]

    def _prediction(self, answer: Tensor, costs: list[Cost]) -> Prediction:
        return Prediction(self.task.from_average(answer), costs, [[]] * len(costs), [{}] * len(costs))
