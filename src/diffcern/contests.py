"""Scores that rest on comparisons of errors, asked about until every comparison stands out (see `racing.py`).

A comparison is right where one sum of errors is less than another, over draws that all of them share:

    D_m = sum_{i in less} e_i,m - sum_{i in more} e_i,m,        settled when |mean_m D_m| > z s / sqrt(n)

or, with a risk, when its e-value stands out on either side: then the probability that one of them is ever settled
wrongly is at most that risk. The z rule promises nothing of the kind.

A score is right where all of its comparisons are: one that is settled as wrong decides it. What no open comparison
needs is not asked about any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, compress

import torch
from jaxtyping import Float32
from torch import Tensor

from diffcern.racing import Rule, standing


@dataclass(frozen=True)
class Comparison:
    """Whether the entries `less` come to less than the entries `more`; a tie is wrong."""

    less: tuple[int, ...]
    more: tuple[int, ...]

    @property
    def entries(self) -> tuple[int, ...]:
        return (*self.less, *self.more)

    def differences(self, errors: Float32[Tensor, "entries draws"]) -> Float32[Tensor, " draws"]:
        return errors[list(self.less)].sum(0) - errors[list(self.more)].sum(0)


@dataclass(frozen=True)
class Verdict:
    """right: by the name of the score. errors: the mean of each entry over the draws that it was asked about. asked:
    evaluations in all; draws: where the last comparison was settled; sure: of the least sure score, by how many
    standard errors what decides it stood out when last looked at (0 where nothing was compared)."""

    right: dict[str, bool]
    errors: Float32[Tensor, " entries"]
    asked: int
    draws: int
    sure: float


def contest(
    ask: Callable[[Sequence[int], range], Float32[Tensor, "some few"]],
    scores: Mapping[str, Sequence[Comparison]],
    entries: int,
    draws: int,
    rule: Rule,
) -> Verdict:
    """ask: the errors of some entries at some draws."""
    errors = torch.full((entries, draws), torch.nan)
    unsettled = list(dict.fromkeys(chain.from_iterable(scores.values())))
    means, among = dict[Comparison, float](), len(unsettled)
    apart: dict[Comparison, float] = {}  # in standard errors
    seen = asked = 0
    while unsettled and seen < draws:
        coming = range(seen, min(seen + rule.more(seen), draws))
        needed = sorted({entry for comparison in unsettled for entry in comparison.entries})
        errors[needed, coming.start : coming.stop] = ask(needed, coming)
        asked, seen = asked + len(needed) * len(coming), coming.stop
        differences = torch.stack([comparison.differences(errors[:, :seen]) for comparison in unsettled])
        means |= dict(zip(unsettled, differences.mean(1).tolist(), strict=True))
        if seen > 1:
            apart |= dict(zip(unsettled, standing(differences).abs().tolist(), strict=True))
            out = rule.leave(differences, among) | rule.leave(-differences, among)
            settled = set(compress(unsettled, out.tolist()))
        else:
            apart, settled = dict.fromkeys(unsettled, 0.0), set[Comparison]()
        lost = {comparison for comparison in settled if means[comparison] >= 0}
        undecided = chain.from_iterable(all_ for all_ in scores.values() if not lost.intersection(all_))
        still = set(undecided) - settled
        unsettled = [comparison for comparison in unsettled if comparison in still]
    right = {name: all(means[c] < 0 for c in comparisons) for name, comparisons in scores.items()}
    sure = [_sure(comparisons, means, apart) for comparisons in scores.values() if comparisons]
    return Verdict(right, errors.nanmean(1), asked, seen, min(sure, default=0.0))


def _sure(
    comparisons: Sequence[Comparison], means: Mapping[Comparison, float], apart: Mapping[Comparison, float]
) -> float:
    """A right score needs all of its comparisons, the closest too; for a wrong one, the clearest that is lost."""
    lost = [apart[c] for c in comparisons if means[c] >= 0]
    return max(lost) if lost else min(apart[c] for c in comparisons)
