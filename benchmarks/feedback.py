"""What Diffusion-TTA answers for fewer evaluations: fewer draws, later times, the same draws, or until it is clear.

    python benchmarks/feedback.py [--worlds digits cifar10 digit-triples] [--count 40] [--figure FILE.svg]

    plain           steps x draws, of all times or of those from 0.4 on; "common": the same draws at every step
    stands out      draws are added, from 2 on to 8, until the gradient of the logits is z standard errors long
    falling         common draws; it ends when the loss of a step is not below that of the step before

Single images, small preset but for what a row says, without `familiar`. Cost is in forward evaluations: one with
gradient counts as three. Accuracy over all images of all shifts, Wilson's interval; rows are paired (the same images).
The world cifar10 needs weights/ and --cifar10 (its default is beside the checkout).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from wording import share

from diffcern.data import load_dataset, subset
from diffcern.data.shifts import shift
from diffcern.draws import Draws, draw
from diffcern.likelihood import condition_gradient
from diffcern.methods.base import Optimizer, Weights, call, descend
from diffcern.methods.diffusion_tta import SMALL
from diffcern.methods.parameters import adaptable_copy, choose_parameters
from diffcern.predictors import load_predictor
from diffcern.priors import load_prior
from diffcern.tasks import Classification

SHIFTS = {
    "digits": ("clean", "noise", "pepper", "blur", "contrast", "background", "clutter", "rotation", "occlusion"),
    "cifar10": ("clean", "noise", "pepper", "blur", "contrast", "occlusion"),
    "digit-triples": ("clean", "noise", "pepper", "contrast", "clutter", "occlusion"),
}
TICKS = (15, 30, 60, 120, 240)
MARKS = {"t from 0": "oC7", "t from 0.4": "sC0", "stands out": "^C2", "falling": "vC3"}
RATES = {"digits": 0.05, "cifar10": 0.01, "digit-triples": 0.05}


@dataclass(frozen=True)
class Row:
    """One way to spend evaluations. z, falling: see above; draws are then at most."""

    steps: int
    draws: int
    low: float = 0.0
    common: bool = False
    z: float | None = None
    falling: bool = False

    def __str__(self) -> str:
        text = f"{self.steps} x {self.draws}, t from {self.low:g}"
        text += ", common" if self.common and not self.falling else ""
        text += f", stands out {self.z:g}" if self.z else ""
        return text + (", falling" if self.falling else "")


ROWS = [
    *(Row(5, draws) for draws in (16, 8, 4)),
    *(Row(5, draws, 0.4) for draws in (16, 8, 4, 2, 1)),
    *(Row(3, draws, 0.4) for draws in (4, 2)),
    *(Row(5, draws, 0.4, common=True) for draws in (4, 2)),
    *(Row(steps, 8, 0.4, z=z) for steps, z in ((5, 2.0), (5, 1.0), (3, 1.0))),
    *(Row(5, draws, 0.4, common=True, falling=True) for draws in (8, 4)),
]


class World:
    """A data set under shifts, with its models."""

    def __init__(self, name: str, split: str, count: int, cifar10: str) -> None:
        self.name, self.rate = name, RATES[name]
        models = "weights/cifar10-{}" if name == "cifar10" else f"embedded:{name}"
        self.prior = load_prior(models.format("prior"))
        self.predictor = adaptable_copy(load_predictor(models.format("predictor")), "all")
        self.start = Weights(choose_parameters(self.predictor, "all"))
        self.task = Classification(self.predictor.class_names, self.prior.class_names)
        source = cifar10 if name == "cifar10" else f"embedded:{name}/{split}"
        data = subset(load_dataset(source), count, seed=0 if split == "test" else 77)
        samples = [data[i] for i in range(len(data))]
        self.images = [
            (shift(s.image, what, 0 if what == "clean" else 4, 0, s.id)[None], s.id, s.target)
            for what in SHIFTS[name]
            for s in samples
        ]

    def answer(self, image: Tensor, id: str, row: Row) -> tuple[int, int]:
        """The class after feedback on one image, and how many draws were differentiated."""
        leaves, optimizer = Optimizer("sgd", self.rate, 0.9).start(self.start)
        latents, spent, before = self.prior.latents(image), 0, torch.inf
        for step in range(row.steps):
            with torch.enable_grad():
                condition = self.task.condition(call(self.predictor, leaves, image) / SMALL["temperature"])
            kind = SMALL["strategy"] if row.z is None else "van-der-corput"
            update = 0 if row.common else step
            draws = draw(kind, row.draws, latents, [id], seed=0, num_timesteps=1000, update=update, span=(row.low, 1.0))
            parts = []
            for some in self.looks(row, draws):
                found = condition_gradient(self.prior, latents, condition, some, weighting=SMALL["weighting"])
                parts.append(found.per_draw.classes[0])
                if row.z is not None and length(torch.cat(parts), condition.classes[0].detach()) > row.z:
                    break
            every = torch.cat(parts)
            spent += len(every)
            if row.falling and (loss := found.loss.item()) >= before:
                break
            before = loss if row.falling else before
            with torch.enable_grad():
                gradients = torch.autograd.grad(
                    condition.classes, list(leaves.values()), every.mean(0)[None], allow_unused=True
                )
            descend(leaves, optimizer, gradients)
        with torch.no_grad():
            return int(call(self.predictor, leaves, image).argmax()), spent

    @staticmethod
    def looks(row: Row, draws: Draws) -> Iterator[Draws]:
        """All draws at once, or some after some."""
        ends = [row.draws] if row.z is None else [2, 3, 4, 6, 8]
        for first, last in zip([0, *ends], ends, strict=False):
            yield draws[slice(first, last)]


def length(gradients: Tensor, p: Tensor) -> float:
    """Of the gradient of the logits, in its standard errors: of d L_m / d c, `[M, K]`, at the probabilities p."""
    logits = p * (gradients - (gradients * p).sum(1, keepdim=True))
    return float(logits.mean(0).norm() / (logits.var(0).sum() / len(logits)).sqrt().clamp(min=1e-30))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", nargs="+", choices=SHIFTS, default=list(SHIFTS))
    parser.add_argument("--split", choices=("test", "validation"), default="test")
    parser.add_argument("--count", type=int, default=40, help="images of each shift")
    parser.add_argument("--cifar10", default="parquet:../shared/data/cifar10/test.parquet")
    parser.add_argument("--figure", type=Path, help="where to draw accuracy against evaluations")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    figure = Figure(figsize=(9.6, 3.4), layout="constrained")
    panels: Any = figure.subplots(1, len(options.worlds), squeeze=False)[0]
    for name, axes in zip(options.worlds, panels, strict=True):
        world = World(name, options.split, options.count, options.cifar10)
        total = len(world.images)
        with torch.no_grad():
            source = sum(int(world.predictor(image).argmax()) == target for image, _, target in world.images)
        print(f"\n{name}, {options.split}, {', '.join(SHIFTS[name])}: N = {total}; source {100 * source / total:.1f} %")
        print(f"{'steps x draws':32}{'evaluations':>12}{'right, %':>22}")
        points: list[tuple[Row, float, float]] = []
        for row in ROWS:
            answers = [(world.answer(image, id, row), target) for image, id, target in world.images]
            right = sum(found == target for (found, _), target in answers)
            cost = 3 * sum(spent for (_, spent), _ in answers) / total
            print(f"{row!s:32}{cost:12.1f}{share(right, total):>22}", flush=True)
            points.append((row, cost, 100 * right / total))
        draw_points(axes, name, 100 * source / total, points)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8)
    if options.figure:
        figure.savefig(options.figure)


def draw_points(axes: Axes, name: str, source: float, points: list[tuple[Row, float, float]]) -> None:
    """points: rows, what they cost, and how many answers are right, in per cent."""
    named: set[str] = set()
    for row, cost, right in points:
        kind = "falling" if row.falling else "stands out" if row.z else f"t from {row.low:g}"
        axes.plot(cost, right, MARKS[kind], label=None if kind in named else kind)
        named.add(kind)
    axes.axhline(source, color="0.6", linestyle=":", label="source")
    axes.set(xscale="log", title=name, xlabel="forward evaluations", ylabel="right, %")
    axes.set_xticks(TICKS, map(str, TICKS))
    axes.minorticks_off()


if __name__ == "__main__":
    main()
