"""Matching examples through a text-to-image prior, or through CLIP: one row each, with every error or similarity."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from diffcern.contests import Verdict, contest
from diffcern.data.base import UnreadableImage, readable
from diffcern.data.pairs import MatchingExample, Pairs
from diffcern.draws import Draws, draw
from diffcern.errors import UsageError
from diffcern.likelihood import errors_of, score
from diffcern.predictors import Predictor, load_predictor
from diffcern.predictors.clip import ZeroShot
from diffcern.priors import TextPrior
from diffcern.racing import Rule
from diffcern.resizing import View, views_of
from diffcern.shortlists import slopes
from diffcern.tasks.matching import check_example, comparisons, grouped, matches
from diffcern.types import Condition


@dataclass(frozen=True)
class Shortlist:
    """size: captions that each image's own is compared with; draws: differentiated ones that rank them all."""

    size: int
    draws: int


def match_rows(
    pairs: Pairs,
    prior: TextPrior,
    *,
    draws: int,
    strategy: str,
    weighting: str,
    norm: str,
    view: View = "centre",
    seed: int,
    todo: Sequence[int],
    rows: int = 64,
    rule: Rule | None = None,
    shortlist: Shortlist | None = None,
) -> Iterator[dict[str, Any]]:
    """Rows with the errors of every image under every caption and under none, and what they get right.

    All captions and all images of an example meet the same draws, so that differences vary least. todo: rows of the
    pairs. view: the part of each image that the prior is shown. rule: of a race; what no comparison needs any more is
    not asked about, an error is the mean over the draws that it was, and a row says where its race stopped and how sure
    its scores are (`Verdict.sure`). shortlist: of a race, for examples of more
    captions: the first by the gradient at their mean are compared, and nfe_backward says what that took.
    """
    how: dict[str, Any] = {"weighting": weighting, "norm": norm, "rows": rows}
    for example in readable(pairs, todo):
        if isinstance(example, UnreadableImage):
            yield {"id": example.name, "error": example.reason}
            continue
        begin = time.perf_counter()
        latents = prior.latents(views_of(example.images, view))
        sample = draw(
            strategy, draws, latents, [example.id] * len(latents), seed=seed, num_timesteps=prior.num_timesteps
        )
        try:
            check_example(len(example.images), len(example.captions))
            hypotheses = _hypotheses(prior, example)
        except UsageError as error:  # or a caption that is too long for the prior
            yield {"id": example.id, "error": str(error)}
            continue
        if rule is None:
            errors = score(prior, latents, hypotheses, sample, **how).mean.cpu()
            right, evaluations = matches(errors[:, :-1], errors[:, -1]), errors.numel() * draws
            ended: dict[str, float] = {}
        else:
            verdict, spent = _raced(prior, latents, hypotheses, sample, rule, shortlist, how)
            errors, evaluations = verdict.errors.view(len(latents), -1), verdict.asked + spent
            right = grouped(verdict.right)
            ended = {"stopped_after": verdict.draws, "standard_errors": round(verdict.sure, 4)}
        yield {
            "id": example.id,
            **right,
            **example.tags,
            "captions": list(example.captions),
            "errors": _rounded(errors[:, :-1]),
            "unconditional": _rounded(errors[:, -1]),
            "nfe_forward": evaluations,
            **({"nfe_backward": spent} if shortlist else {}),
            **ended,
            "seconds": round(time.perf_counter() - begin, 4),
            "error": None,
        }


def _raced(
    prior: TextPrior,
    latents: Tensor,
    hypotheses: Condition,
    sample: Draws,
    rule: Rule,
    shortlist: Shortlist | None,
    how: dict[str, Any],
) -> tuple[Verdict, int]:
    """The scores of one example, whose images share their draws, and the evaluations that its shortlists took."""
    said = len(hypotheses)
    order = rule.order(sample.timesteps[0].cpu(), prior.num_timesteps)
    listed, spent = None, 0
    if shortlist and said - 1 > shortlist.size:
        first = sample[order[: shortlist.draws].to(latents.device)]
        slope = slopes(prior, latents, hypotheses[: said - 1], first, **how)
        listed = slope.argsort(dim=1, stable=True)[:, : shortlist.size].tolist()
        spent = len(latents) * shortlist.draws

    def ask(entries: Sequence[int], coming: range) -> Tensor:
        index = torch.tensor([(e // said, e % said, order[m]) for e in entries for m in coming], device=latents.device)
        errors = errors_of(prior, latents, hypotheses, sample, tuple(index.T), **how)
        return errors.view(len(entries), len(coming)).cpu()

    asked = comparisons(len(latents), said - 1, listed)
    verdict = contest(ask, asked, len(latents) * said, sample.count, rule)
    if not asked["text"]:  # an image's own caption is on no shortlist
        verdict = replace(verdict, right={**verdict.right, "text": False})
    return verdict, spent


def load_contrastive(name: str, pairs: Pairs, *, allow_pickle: bool = False) -> Predictor:
    """The CLIP or SigLIP model `name`, its labels all captions of the pairs as they are.

    Raises UsageError for another kind of predictor, and for captions that it cannot read whole; DiffcernError for one
    that cannot be had or read.
    """
    captions = list(dict.fromkeys(caption for entry in pairs.entries for caption in entry.captions))
    try:
        predictor = load_predictor(name, labels=captions, templates=["{}"], allow_pickle=allow_pickle)
        reads = isinstance(predictor.model, ZeroShot)
    except UsageError as error:
        raise UsageError(f"--predictor {name}: {error} (captions are read by CLIP and SigLIP models)") from error
    if not reads:
        raise UsageError(f"--predictor {name} does not read captions: CLIP and SigLIP models do")
    return predictor


@torch.no_grad()
def contrastive_rows(pairs: Pairs, predictor: Predictor, *, todo: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Rows with the similarity (the logit) of every image and caption, and what these get right.

    predictor: from `load_contrastive`; todo: rows of the pairs.
    """
    labels = {caption: k for k, caption in enumerate(predictor.class_names)}
    for example in readable(pairs, todo):
        if isinstance(example, UnreadableImage):
            yield {"id": example.name, "error": example.reason}
            continue
        begin = time.perf_counter()
        try:
            check_example(len(example.images), len(example.captions))
        except UsageError as error:
            yield {"id": example.id, "error": str(error)}
            continue
        logits = torch.cat([predictor(image[None].to(predictor.mean.device)) for image in example.images])
        similarities = logits[:, [labels[caption] for caption in example.captions]].cpu()
        yield {
            "id": example.id,
            **matches(-similarities),
            **example.tags,
            "captions": list(example.captions),
            "similarities": _rounded(similarities),
            "seconds": round(time.perf_counter() - begin, 4),
            "error": None,
        }


def _hypotheses(prior: TextPrior, example: MatchingExample) -> Condition:
    """The captions, and no caption last."""
    captions, null = prior.prompts(example.captions), prior.null.rows
    return Condition(**{name: torch.cat([value, null.parts[name]]) for name, value in captions.parts.items()})


def _rounded(errors: Tensor) -> Any:
    """As nested lists, with the digits that fp32 has; None for what nobody asked about."""
    if errors.ndim:
        return [_rounded(row) for row in errors]
    return None if errors.isnan() else float(f"{errors.item():.7g}")
