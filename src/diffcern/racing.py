"""Racing: only the hypotheses that may still win are asked about, until one is left.

    d_k,m = e_k,m - e_best,m,        k leaves when    mean_m d_k,m  >  z * s_k / sqrt(n)

All hypotheses of an image see the same (t, eps), so that the differences vary far less than the errors. Looking again
is testing again: z is no level of significance, what it costs is measured (docs/methods/diffusion-classifier.md).
With `risk` the look is anytime-valid: for the t statistic of n differences, an e-value

    E = (1 + n g)^-1/2 [ (1 + t^2 / v) / (1 + t^2 / (v (1 + n g))) ]^((v + 1) / 2),        v = n - 1

(normal prior of variance g on the mean in units of the deviation, right Haar prior on the deviation; Perez-Ortiz et al.
2024, arXiv 2208.07610), and k leaves when E > (K - 1) / risk: were differences independent and normal, the hypothesis
that is best in truth would ever leave with a probability of at most `risk`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float32, Int
from torch import Tensor

from diffcern.draws import Draws
from diffcern.errors import UsageError
from diffcern.likelihood import check_draws_of, errors_of
from diffcern.priors.base import Prior
from diffcern.types import Condition, Latents

PREFIXES = ("van-der-corput", "uniform")  # strategies whose first draws are as good as any
SHARED = 4  # draws' worth of belief that all rivals' differences vary alike
EFFECT = 1.0  # g, the variance of an effect in units of the deviation
SIDE_BY_SIDE = 2**26  # numbers of noise, of the images that race side by side on an accelerator
GROWTH = 0.25  # each look comes after so many more draws, as a share


@dataclass(frozen=True)
class Rule:
    """When a hypothesis leaves. z: standard errors, after at least `start` draws; risk: of the anytime-valid rule, in
    the place of z. first: the part of [0, 1] whose times are asked about before all others: where hypotheses differ.

    Raises UsageError for a z that is not above 0, a start below 2, a risk or a span outside of [0, 1].
    """

    z: float = 2.0
    start: int = 3
    risk: float | None = None
    first: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if not 0 < self.z < math.inf:
            raise UsageError(f"z is a number of standard errors above 0, not {self.z}")
        if self.start < 2:
            raise UsageError(f"a race looks first after 2 draws or more, not {self.start}: one has no standard error")
        if self.risk is not None and not 0 < self.risk < 1:
            raise UsageError(f"risk is the probability of a wrong answer, between 0 and 1, not {self.risk}")
        if not 0 <= self.first[0] < self.first[1] <= 1:
            raise UsageError(f"first is a part of the times, 0 <= low < high <= 1, not {self.first}")

    def check(self, strategy: str, draws: int) -> None:
        """Raises UsageError for draws whose first are not like the others, and for fewer than `start`."""
        if strategy not in PREFIXES:
            raise UsageError(f"a race stops in the middle of its draws: strategy is one of {', '.join(PREFIXES)}")
        if self.start > draws:
            raise UsageError(
                f"a race looks first after {self.start} draws, and there are {draws}: give more draws, a smaller "
                "start, or stop= to ask about every hypothesis"
            )

    def more(self, seen: int) -> int:
        """Draws between a look after `seen` of them and the next."""
        return self.start if not seen else max(1, int(seen * GROWTH))

    def order(self, times: Int[Tensor, "*batch draws"], num_timesteps: int) -> Int[Tensor, "*batch draws"]:
        """Draws in the order in which they are asked about, of each image."""
        time = times.float() / num_timesteps
        later = (time < self.first[0]) | (time > self.first[1])
        return later.long().argsort(dim=-1, stable=True)

    def leave(self, differences: Float32[Tensor, "rivals draws"], rivals: int) -> Bool[Tensor, " rivals"]:
        """Which rivals are out, by their differences to the best, of which there were so many in the beginning."""
        if self.risk is None:
            return standing(differences) > self.z
        count = differences.shape[1]
        t = differences.mean(1) / (differences.std(1) / count**0.5).clamp(min=1e-30)
        return (t > 0) & (log_e_value(t, count) > math.log(rivals / self.risk))


def standing(differences: Float32[Tensor, "rivals draws"]) -> Float32[Tensor, " rivals"]:
    """By how many standard errors each rival is behind.

    Variances of few draws are themselves uncertain: each is drawn towards the mean of all rivals'.
    """
    free = differences.shape[1] - 1
    variance = differences.var(1)
    shared = (free * variance + SHARED * variance.mean()) / (free + SHARED)
    return differences.mean(1) / (shared / differences.shape[1]).sqrt().clamp(min=1e-30)


def log_e_value(t: Float32[Tensor, " rivals"], count: int) -> Float32[Tensor, " rivals"]:
    """log E of the t statistic of `count` draws against a mean of at most 0."""
    grown, free = 1 + count * EFFECT, count - 1
    ratio = torch.log1p(t.square() / free) - torch.log1p(t.square() / (free * grown))
    return 0.5 * (count * ratio - math.log(grown))


@dataclass
class Lane:
    """One image's race. errors: `[K, M]` in the order of asking, NaN where nobody asked."""

    errors: Float32[Tensor, "hypotheses draws"]
    alive: list[int]
    owners: Sequence[int]
    seen: int = 0
    asked: int = 0
    gaps: dict[int, tuple[float, float]] = field(default_factory=dict)  # when it left: mean behind the best, its error

    @property
    def open(self) -> bool:
        """Whether more than one answer is left, and a draw to tell them apart by."""
        several = len({self.owners[k] for k in self.alive}) > 1
        return not self.seen or (several and self.seen < self.errors.shape[1])

    @property
    def best(self) -> int:
        """The hypothesis that leads."""
        means = self.errors[self.alive, : self.seen].mean(1)
        return self.alive[int(means.argmin())]

    def notes(self) -> dict[str, float]:
        """Where the race ended: after how many draws, how many rivals were left, and the closest one's margin."""
        best = self.owners[self.best]
        others = [gap for k, gap in self.gaps.items() if self.owners[k] != best]
        notes = {"stopped_after": float(self.seen), "rivals_left": float(len({self.owners[k] for k in self.alive}) - 1)}
        if others:
            margin, error = min(others, key=lambda gap: gap[0] / max(gap[1], 1e-30))
            notes |= {"margin": margin, "margin_standard_error": error}
        return notes

    def next(self, rule: Rule) -> range:
        """The draws that come before the next look."""
        return range(self.seen, min(self.seen + rule.more(self.seen), self.errors.shape[1]))

    def look(self, rule: Rule) -> None:
        """Lets those leave that stand out; notes how far each rival is behind."""
        best = self.best
        rivals = [k for k in self.alive if k != best]
        if not rivals:
            self.gaps.setdefault(best, (0.0, 0.0))
            return
        differences = self.errors[rivals, : self.seen] - self.errors[best, : self.seen]
        out = rule.leave(differences, self.errors.shape[0] - 1).tolist() if self.seen > 1 else [False] * len(rivals)
        deviation = differences.std(1, correction=1 if self.seen > 1 else 0) / self.seen**0.5
        self.gaps[best] = (0.0, 0.0)
        self.gaps |= dict(zip(rivals, zip(differences.mean(1).tolist(), deviation.tolist(), strict=True), strict=True))
        self.alive = [best, *(k for k, gone in zip(rivals, out, strict=True) if not gone)]


def side_by_side(latents: Latents, draws: int) -> int:
    """How many images race at a time. On a CPU one: their number would show in the last bit, and gains nothing."""
    return 1 if latents.device.type == "cpu" else max(1, SIDE_BY_SIDE // (draws * latents[0].numel()))


@torch.no_grad()
def race(
    prior: Prior,
    latents: Latents,
    hypotheses: Condition,
    draws: Draws,
    rule: Rule,
    *,
    candidates: Sequence[Sequence[int]] | None = None,
    owners: Sequence[int] | None = None,
    weighting: str = "eps",
    norm: str = "l2",
    rows: int = 256,
    look_on: Callable[[Sequence[Lane]], None] = lambda lanes: None,
) -> list[Lane]:
    """Every image's race, ended.

    candidates: rows of the hypotheses that take part, of each image; all without. owners: what each row says; rows of
    one owner need not be told apart. Images go side by side, and rows of the network are filled from all that are open:
    give one image at a time where its answer must not depend on the others to the last bit. look_on: shown the lanes
    after every look. Raises as `score`.
    """
    check_draws_of(latents, draws)
    device, count = latents.device, draws.count
    said = list(range(len(hypotheses))) if owners is None else list(owners)
    chosen = [range(len(hypotheses))] * len(latents) if candidates is None else candidates
    lanes = [Lane(torch.full((len(said), count), torch.nan), list(row), said) for row in chosen]
    order = rule.order(draws.timesteps.cpu(), prior.num_timesteps)
    while running := [(b, lane) for b, lane in enumerate(lanes) if lane.open]:
        asks = [(b, k, m) for b, lane in running for k in lane.alive for m in lane.next(rule)]
        b, k, m = torch.tensor(asks).T
        errors = errors_of(
            prior,
            latents,
            hypotheses,
            draws,
            (b.to(device), k.to(device), order[b, m].to(device)),
            weighting=weighting,
            norm=norm,
            rows=rows,
            pad=device.type != "cpu",  # where rows of all open images go together, their number changes at every look
        ).cpu()
        for image, lane in running:
            mine = b == image
            lane.errors[k[mine], m[mine]] = errors[mine]
            lane.asked += int(mine.sum())
            lane.seen = lane.next(rule).stop
            lane.look(rule)
        look_on(lanes)
    return lanes
