"""What an answer costs against the number of classes: 10 digits, 100 pairs, 1,000 triples (embedded models).

    python benchmarks/many_classes.py --keep FOLDER [--worlds digits digit-pairs] [--count 50] [--figure FILE.svg]

An evaluation with gradient counts as three. "same": the answer of all classes at all 64 draws; "listed": the share of
images in which that answer is on the shortlist. Images of the test split, clean and under noise (severity 4). With a
thousand classes the answer that all are held against takes half a minute an image: errors are kept in FOLDER, and a
second call goes on. Lists (draws, length) were chosen on the validation split: --split validation.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from safetensors.torch import load_file, save_file
from torch import Tensor
from wording import share_of

from diffcern.data import load_dataset, subset
from diffcern.data.shifts import shift
from diffcern.draws import Draws, draw
from diffcern.likelihood import score
from diffcern.methods import build_method
from diffcern.methods.diffusion_classifier import DiffusionClassifier
from diffcern.methods.presets import preset_options
from diffcern.predictors import load_predictor
from diffcern.priors import load_prior
from diffcern.tasks import Classification
from diffcern.types import Inputs

WORLDS = {"digits": (4, 4), "digit-pairs": (8, 10), "digit-triples": (16, 40)}  # draws and length of shortlists
SHIFTS = {"clean": 0, "noise": 4}
ALL = "all classes, 64 draws"


@dataclass(frozen=True)
class Row:
    """cost: of an image, in forward evaluations; answers: one class for each; listed: None without a shortlist."""

    cost: float
    answers: Tensor
    listed: Tensor | None = None


class World:
    """One data set with its models, and what all methods are shown of it."""

    def __init__(self, name: str, split: str, count: int, keep: Path) -> None:
        self.name, self.keep = name, keep
        self.prior, self.predictor = load_prior(f"embedded:{name}"), load_predictor(f"embedded:{name}")
        self.task = Classification(self.predictor.class_names, self.prior.class_names)
        data = subset(load_dataset(f"embedded:{name}/{split}"), count, seed=0)
        samples = [data[i] for i in range(len(data))]
        self.targets = torch.tensor([s.target for s in samples]).repeat(len(SHIFTS))
        self.inputs = [
            Inputs(shift(s.image, what, severity, 0, s.id)[None], [s.id])
            for what, severity in SHIFTS.items()
            for s in samples
        ]
        self.places = [f"{name}-{split}-{what}-{s.id}" for what in SHIFTS for s in samples]

    def draws(self, inputs: Inputs) -> tuple[Tensor, Draws]:
        """The latent of an image and its 64 draws: those of every method here."""
        latents = self.prior.latents(inputs.images)
        steps = self.prior.num_timesteps
        return latents, draw("van-der-corput", 64, latents, inputs.ids, seed=0, num_timesteps=steps)

    @cached_property
    def errors(self) -> list[Tensor]:
        """Of every class at every draw, `[K, 64]`, of each image."""
        found = []
        for inputs, place in zip(self.inputs, self.places, strict=True):
            file = self.keep / f"{place}.safetensors"
            if not file.exists():
                every = self.task.hypotheses(self.prior.device)
                table = score(self.prior, *self._pair(inputs, every), weighting="x0").errors[0]
                save_file({"errors": table}, file)
            found.append(load_file(file)["errors"])
        return found

    def _pair(self, inputs: Inputs, every: Any) -> tuple[Tensor, Any, Draws]:
        latents, draws = self.draws(inputs)
        return latents, every, draws

    def exhaustive(self, draws: int) -> Row:
        """All classes at the first draws."""
        answers = [table[:, :draws].mean(1).argmin() for table in self.errors]
        return Row(len(self.task.class_names) * draws, torch.stack(answers))

    def staged(self, kept: int) -> Row:
        """All classes at 4 draws, those that are kept at 16."""
        answers = []
        for table in self.errors:
            alive = table[:, :4].mean(1).argsort(stable=True)[:kept]
            answers.append(alive[table[alive, :16].mean(1).argmin()])
        return Row(len(self.task.class_names) * 4 + kept * 12, torch.stack(answers))

    def method(self, name: str, options: dict[str, Any]) -> Row:
        """A method of the library over its small preset, image by image."""
        method = build_method(name, self.predictor, self.prior, self.task, {**preset_options(name, "small"), **options})
        answers, costs, listed = [], [], []
        for inputs, table in zip(self.inputs, self.errors, strict=True):
            answer, _ = method.step(method.init(), inputs, 0)
            answers.append(answer.output[0].argmax())
            costs += [cost.nfe_forward + 2 * cost.nfe_backward for cost in answer.costs]
            if isinstance(method, DiffusionClassifier) and method.ranking:
                first = method.ranking(inputs, *self.draws(inputs))[0].argsort(descending=True, stable=True)
                listed.append((first[: method.shortlist_size] == table.mean(1).argmin()).any())
        return Row(sum(costs) / len(costs), torch.stack(answers), torch.stack(listed) if listed else None)


def rows(world: World) -> dict[str, Callable[[], Row]]:
    """Every row of a world's table, made when it is called."""
    draws, size = WORLDS[world.name]

    def raced(which: str) -> Callable[[], Row]:
        options = {"shortlist": which, "shortlist_size": size, "shortlist_draws": draws}
        return lambda: world.method("diffusion-classifier", options if which else {})

    return {
        ALL: lambda: world.exhaustive(64),
        "all classes, 16 draws": lambda: world.exhaustive(16),
        "staged": lambda: world.staged(max(4, len(world.task.class_names) // 20)),
        "race": raced(""),
        "gradient + race": raced("gradient"),
        "prototypes + race": raced("prototypes"),
        "predictor + race": raced("predictor"),
        "diffusion-tta": lambda: world.method("diffusion-tta", {}),
        "prototypes": lambda: world.method("prototypes", {}),
        "source": lambda: world.method("source", {}),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=list(WORLDS))
    parser.add_argument("--split", choices=("test", "validation"), default="test")
    parser.add_argument("--count", type=int, default=50, help="images under each of clean and noise")
    parser.add_argument("--keep", type=Path, required=True, help="folder for errors of all classes")
    parser.add_argument("--figure", type=Path, help="where to draw cost against the number of classes")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.keep.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[int, Row]] = {}
    for name in options.worlds:
        world = World(name, options.split, options.count, options.keep)
        classes = len(world.task.class_names)
        print(f"\n{name}, {options.split}, K = {classes:,}, clean and noise: N = {len(world.targets)}")
        print(f"{'':24}{'evaluations':>12}{'same, %':>22}{'right, %':>22}{'listed, %':>22}")
        for row, make in rows(world).items():
            made = make()
            found.setdefault(row, {})[classes] = made
            same, right = share_of(made.answers == found[ALL][classes].answers), share_of(made.answers == world.targets)
            listed = "" if made.listed is None else share_of(made.listed)
            print(f"{row:24}{made.cost:12,.1f}{same:>22}{right:>22}{listed:>22}", flush=True)
    if options.figure:
        draw_costs(found, options.figure)


def draw_costs(found: dict[str, dict[int, Row]], file: Path) -> None:
    """Evaluations of an image against the number of classes, of whatever asks the denoiser."""
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    for (name, made), marker in zip(found.items(), "osD^v<>P*X", strict=True):
        costs = {classes: row.cost for classes, row in made.items() if row.cost}
        if costs:
            axes.plot(list(costs), list(costs.values()), marker=marker, label=name)
    axes.set(xscale="log", yscale="log", xlabel="classes", ylabel="evaluations of the denoiser, an image")
    axes.set_xticks([10, 100, 1000], ["10", "100", "1,000"])
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(file)


if __name__ == "__main__":
    main()
