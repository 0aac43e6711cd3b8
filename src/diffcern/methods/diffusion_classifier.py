"""Diffusion Classifier (Li et al. 2023, arXiv 2303.16203): the class whose condition denoises the image best.

argmin_k  E_{t, eps} w(t) || eps - eps_hat(z_t, t, c_k) ||^2       with the same (t, eps) for every class

It asks for every class and draw, or in the published stages, or races (`racing.py`) and asks only where it is open.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from diffcern.draws import Draws, check_draws, draw
from diffcern.errors import UsageError
from diffcern.likelihood import Score, check_norm, score
from diffcern.methods.base import Count, Method, frozen_view
from diffcern.methods.rankings import ByGradient, ByPredictor, ByPrototypes, Ranking, given
from diffcern.predictors import Predictor
from diffcern.priors import Prior
from diffcern.racing import Lane, Rule, race, side_by_side
from diffcern.resizing import View, views_of
from diffcern.tasks import Classification
from diffcern.types import Cost, Inputs, Prediction
from diffcern.watching import Interim, on_the_way
from diffcern.weightings import weighting as weighting_named


class DiffusionClassifier(Method):
    """Exhaustive (`keep` empty), in the published stages, or a race.

    draws: timesteps per class in all. keep, samples: per stage, how many classes survive and how many timesteps
    the stage spreads over the range, e.g. keep (5, 1), samples (50, 500) for CIFAR-10. temperature: the output is
    -D * (mean error - best mean error) / temperature; its softmax is a probability only once tau is fitted on
    held-out data (a mean loss is none), and for an eliminated class it rests on the stage in which it fell.
    A class with several prompts is as good as its best one, as published; stages keep prompts. view: what the prior
    is shown of an image, the "centre" square (as published) or the "whole" of it, squeezed.
    stop "race": classes leave as soon as they stand out by z standard errors, after `start` draws or more, at most
    `draws`; risk takes the place of z by an anytime-valid rule; first, the part of [0, 1] whose times come first (see
    `racing.Rule`). shortlist: only the shortlist_size classes are raced that the error falls fastest towards, from the
    even mixture ("gradient", by shortlist_draws differentiated draws), or that come first for the "predictor" or for
    "prototypes" of its features (`generated`: see `methods/prototypes.py`). What is not among them can't win, and under
    a shift the latter two often leave the right one out: of a hundred classes, clean and noise, the first ten hold the
    exhaustive answer by gradient in 99 of 100 images, by the predictor in 75 (`benchmarks/many_classes.py`).
    class_prior: what is expected before the prior is asked: "uniform", as published, or the "predictor"'s probabilities
    by Bayes, log f_k(x) beside the log-likelihood: a second opinion, and no longer a generative classifier alone.
    Defaults: DiT's 250 evenly spaced timesteps, a noise bank shared by all images, l2.
    """

    small: ClassVar[Mapping[str, Any]] = {
        "draws": 64,
        "weighting": "x0",
        "strategy": "van-der-corput",
        "stop": "race",
        "first": [0.4, 1.0],
    }
    added: ClassVar[Mapping[str, Any]] = {"generated": "", "class_prior": "uniform"}

    def __init__(
        self,
        prior: Prior,
        task: Classification,
        predictor: Predictor | None = None,
        *,
        draws: Count = 250,
        strategy: str = "fixed-bank",
        weighting: str = "eps",
        norm: str = "l2",
        keep: Sequence[int] = (),
        samples: Sequence[int] = (),
        stop: Literal["", "race"] = "",
        z: float = 2.0,
        start: Count = 3,
        risk: float | None = None,
        first: tuple[float, float] = (0.0, 1.0),
        shortlist: Literal["", "gradient", "predictor", "prototypes"] = "",
        shortlist_size: Count = 5,
        shortlist_draws: Count = 8,
        generated: str = "",
        temperature: float = 1.0,
        class_prior: Literal["uniform", "predictor"] = "uniform",
        rows: Count = 256,
        span: tuple[float, float] = (0.0, 1.0),
        view: View = "centre",
    ) -> None:
        self.prior = frozen_view(prior)
        self.hypotheses, self.owners = self.prior.phrasings(task.hypotheses(self.prior.device))
        self.classes = len(task.class_names)
        self.keep, self.samples = tuple(keep), tuple(samples)
        if len(self.keep) != len(self.samples) or (self.keep and self.keep[-1] != 1):
            raise UsageError("keep and samples need one entry per stage, and the last stage keeps 1 class")
        if list(self.samples) != sorted(self.samples):
            raise UsageError(f"samples must grow from stage to stage, not {self.samples}")
        if any(kept < 1 for kept in self.keep) or any(count < 1 for count in self.samples):
            raise UsageError("keep and samples are at least 1 in every stage")
        check_norm(norm)
        weighting_named(weighting)
        if not temperature > 0:
            raise UsageError(f"temperature must be above 0, not {temperature}")
        self.draws = max(self.samples, default=draws)
        self.rule = Rule(z, start, risk, (first[0], first[1])) if stop else None
        if self.rule:
            self.rule.check(strategy, self.draws)
            if self.keep:
                raise UsageError("a race has no stages: leave keep and samples out, or give stop=")
        elif shortlist:
            raise UsageError("a shortlist is raced among: give stop = race too")
        if shortlist and not 2 <= shortlist_size < self.classes:
            raise UsageError(f"shortlist_size is 2 or more of {self.classes} classes, not {shortlist_size}")
        if shortlist and shortlist_draws > self.draws:
            raise UsageError(f"shortlist_draws are some of {self.draws} draws, not {shortlist_draws}")
        if generated and shortlist != "prototypes":
            raise UsageError("generated images are what prototypes are of: give shortlist = prototypes too")
        self.asking: dict[str, Any] = {"weighting": weighting, "norm": norm, "rows": rows}
        self.ranking: Ranking | None = None
        if shortlist == "gradient" and self.rule:
            said = self.prior, self.hypotheses, self.owners
            self.ranking = ByGradient(*said, self.rule, shortlist_draws, self.asking)
        elif shortlist == "predictor":
            self.ranking = ByPredictor(given(predictor, "shortlist = predictor"))
        elif shortlist:
            self.ranking = ByPrototypes(given(predictor, "shortlist = prototypes"), prior, task, generated)
        self.expected = None if class_prior == "uniform" else ByPredictor(given(predictor, "class_prior = predictor"))
        self.loaded = self.ranking.loaded if self.ranking else ""
        self.shortlist_size, self.differentiated = shortlist_size, shortlist_draws if shortlist == "gradient" else 0
        numbers = len(self.owners) + math.prod(self.prior.latent_shape)  # errors and noise
        check_draws(strategy, self.draws, span, numbers)
        alive = [len(self.hypotheses), *self.keep[:-1]]
        new = [b - a for a, b in itertools.pairwise((0, *(self.samples or (draws,))))]
        self.evaluations = sum(k * m for k, m in zip(alive, new, strict=True))  # of an image, at most
        if shortlist:
            most = int(self.owners.bincount().topk(shortlist_size).values.sum())  # phrasings of the classes on it
            self.evaluations = most * draws + self.differentiated
        self.strategy = strategy
        self.view: View = view
        self.temperature, self.span = temperature, (span[0], span[1])

    def init(self) -> None:
        return None

    def step(self, state: None, inputs: Inputs, seed: int) -> tuple[Prediction, None]:
        latents = self.prior.latents(views_of(inputs.images, self.view))
        group = side_by_side(latents, self.draws) if self.rule else 1
        answers = []
        for some in torch.arange(len(inputs)).split(group):
            these = inputs.at(some.tolist())
            draws = draw(
                self.strategy,
                self.draws,
                latents[some],
                these.ids,
                seed=seed,
                num_timesteps=self.prior.num_timesteps,
                span=self.span,
            )
            rule = self.rule
            answers += self._race(these, latents[some], draws, rule) if rule else [self._classify(latents[some], draws)]
        gaps, costs, notes = zip(*answers, strict=True)
        return Prediction(self._logits(torch.stack(gaps), inputs, latents), costs, notes=notes), None

    @torch.no_grad()
    def _logits(self, gaps: Tensor, inputs: Inputs, latents: Tensor) -> Tensor:
        """`[B, K]` of the gaps to the best: log-likelihoods, and log-posteriors where a class is expected."""
        output = -latents[0].numel() * gaps / self.temperature
        return output + self.expected.logits(inputs).log_softmax(1) if self.expected else output

    def _race(
        self, inputs: Inputs, latents: Tensor, draws: Draws, rule: Rule
    ) -> list[tuple[Tensor, Cost, dict[str, float]]]:
        """For each image as `_classify`; notes say where its race ended, too."""

        def look_on(lanes: Sequence[Lane]) -> None:
            on_the_way(lambda: Interim(self._logits(self._gaps(lanes[0])[None], inputs.at([0]), latents)[0]))

        chosen, spent = None, self.differentiated
        if self.ranking:
            with torch.no_grad():
                scores = self.ranking(inputs, latents, draws)
            listed = scores.argsort(dim=1, descending=True, stable=True)[:, : self.shortlist_size]
            chosen = [torch.isin(self.owners, row).nonzero().flatten().tolist() for row in listed]
        lanes = race(
            self.prior,
            latents,
            self.hypotheses,
            draws,
            rule,
            candidates=chosen,
            owners=self.owners.tolist(),
            look_on=look_on,
            **self.asking,
        )
        return [(self._gaps(lane), Cost(lane.asked + spent, spent), lane.notes()) for lane in lanes]

    def _gaps(self, lane: Lane) -> Tensor:
        """Of each class to the best, `[K]`: what nobody asked about is taken to be as far as the farthest."""
        gaps = torch.full((self.classes,), max(gap for gap, _ in lane.gaps.values()))
        asked = torch.full((self.classes,), torch.inf)
        for k, (gap, _) in lane.gaps.items():
            asked[lane.owners[k]] = min(asked[lane.owners[k]].item(), gap)
        return torch.where(asked.isfinite(), asked, gaps).to(self.prior.device)

    def _classify(self, latent: Tensor, draws: Draws) -> tuple[Tensor, Cost, dict[str, float]]:
        """For one image: each class's gap to the best when it was last scored `[K]`, the cost, the margin."""
        hypotheses, owners = self.hypotheses, self.owners
        errors = latent.new_full((len(hypotheses), self.draws), torch.nan, dtype=torch.float32)
        alive = torch.arange(len(hypotheses), device=latent.device)
        gaps = latent.new_zeros(len(hypotheses), dtype=torch.float32)
        done: list[int] = []
        spent = 0
        for keep, samples in zip(self.keep or (1,), self.samples or (self.draws,), strict=True):
            new = [m for m in stage_indices(self.draws, samples) if m not in set(done)]
            stage = score(
                self.prior,
                latent,
                hypotheses,
                draws[torch.tensor(new, device=latent.device)],
                candidates=alive[None],
                **self.asking,
            )
            errors[alive[:, None], torch.tensor(new, device=latent.device)] = stage.errors[0]
            done += new
            spent += len(alive) * len(new)
            scored = Score(errors[alive][None, :, done])
            gaps[alive] = scored.mean[0] - scored.mean.min()
            finalists = alive
            alive = alive[scored.mean[0].argsort(stable=True)[:keep]]
        best = scored.mean[0].argsort(stable=True)
        said = owners[finalists][best]
        others = best[said != said[0]]  # the runner-up is of another class
        notes = {}
        if len(others):
            margin, error = Score(scored.errors[:, [best[0], others[0]]]).margin()
            notes = {"margin": margin.item(), "margin_standard_error": error.item()}
        least = gaps.new_full((self.classes,), torch.inf)
        return least.scatter_reduce(0, owners, gaps, "amin"), Cost(nfe_forward=spent), notes


def stage_indices(total: int, samples: int) -> list[int]:
    """Which of `total` evenly spaced timesteps a stage of `samples` visits: T//M//2, T//M//2 + T//M, ..."""
    step = total // samples
    return list(range(step // 2, total, step))[:samples]
