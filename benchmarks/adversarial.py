"""What is left of a defence once an attack knows of it: accuracy under PGD on the expectation over its noise.

    python benchmarks/adversarial.py [--methods source diffpure --radius 0.1 --count 100 --evaluations 5]
    python benchmarks/adversarial.py --dataset D --predictor P --prior R --methods diffpure:start=99,steps=5,solver=ddpm

Every row is a method on images of one attack: none; on the predictor alone (the predictor's gradient); through the
defence with noising and denoising taken for the identity (BPDA); with its exact gradient; and, of each image, whichever
of these did most. Columns: asked once; the worst of N evaluations, each with noise of its own; the majority of these N.
Intervals are Wilson's, 95 %. This measures a lower end of what attacks can do, and is no claim of security.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffcern.attacks import PGD, Target, evaluations, scored, through, undefended
from diffcern.data import load_dataset, subset
from diffcern.methods import build_method
from diffcern.methods.base import Method
from diffcern.methods.diffusion_classifier import DiffusionClassifier
from diffcern.methods.presets import preset_options
from diffcern.methods.purified import Purified, voted
from diffcern.metrics import wilson
from diffcern.predictors import Predictor, load_predictor
from diffcern.priors import load_prior
from diffcern.tasks import Classification
from diffcern.types import Inputs

READINGS = ("once", "worst of N", "majority of N")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="embedded:digits")
    parser.add_argument("--predictor", default="embedded:digits")
    parser.add_argument("--prior", default="embedded:digits")
    parser.add_argument("--methods", nargs="+", default=["source", "diffpure"], help="NAME or NAME:option=value,...")
    parser.add_argument("--preset", default="small")
    parser.add_argument("--norm", default="linf", choices=("linf", "l2"))
    parser.add_argument("--radius", type=float, default=0.1)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--draws", type=int, default=4, help="evaluations of the defence for each gradient")
    parser.add_argument("--restarts", type=int, default=1)
    parser.add_argument("--scores", type=int, default=2, help="draws per class and evaluation of Diffusion Classifier")
    parser.add_argument("--evaluations", type=int, default=5, help="N")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--skip", type=int, default=0, help="leave out as many, that a figure is reported on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="the rows as JSON")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    data = subset(load_dataset(given.dataset), given.count, seed=0, skip=given.skip)
    samples = [data[k] for k in range(len(data))]
    images, labels = torch.stack([s.image for s in samples]), torch.tensor([s.target for s in samples])
    prior, predictor = load_prior(given.prior), load_predictor(given.predictor)
    task = Classification.joining(predictor, prior)
    attack = PGD(given.radius, 2.5 * given.radius / given.steps, given.norm, given.steps, given.draws, given.restarts)
    print(f"{given.dataset}, N images = {len(images)}, N evaluations = {given.evaluations}, {attack}")
    print(f"{'':54}" + "  ".join(f"{reading:>20}" for reading in READINGS) + "     seconds")
    rows = []
    for spelled in given.methods:
        name, _, told = spelled.partition(":")
        options = {**preset_options(name, given.preset), **dict(map(option, filter(None, told.split(","))))}
        method = build_method(name, predictor, prior, task, options)
        answered: dict[str, Tensor] = {}
        for under, target in targets(method, predictor, given.scores).items():
            began = time.perf_counter()
            shown = images if target is None else attack(target, images, labels, data.ids, given.seed)
            inputs = Inputs(shown, list(data.ids))
            answered[under] = right(evaluations(method, inputs, given.evaluations, given.seed), labels)
            rows.append(row(spelled, under, answered[under], time.perf_counter() - began))
        if len(attacks := [found for under, found in answered.items() if under != "no attack"]) > 1:
            rows.append(row(spelled, "the worst of these", torch.stack(attacks).all(0), 0.0))
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(rows, indent=1) + "\n")


def option(spelled: str) -> tuple[str, Any]:
    """name=value, the value as JSON where it is such."""
    name, _, value = spelled.partition("=")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def targets(method: Method, predictor: Predictor, draws: int) -> dict[str, Target | None]:
    """What is attacked, by what the attack knows; None is no attack."""
    alone = {"no attack": None, "predictor": undefended(predictor)}
    if isinstance(method, Purified):
        return {**alone, "defence, BPDA": through(method, "identity"), "defence, exact": through(method)}
    if isinstance(method, DiffusionClassifier):
        return {**alone, "defence, exact": scored(method, draws)}
    return alone


def right(answers: Tensor, labels: Tensor) -> Tensor:
    """Whether each image is answered rightly, in each of `READINGS`: `[3, B]`, of probabilities `[N, B, K]`."""
    each = answers.argmax(-1) == labels
    return torch.stack([each[0], each.all(0), voted(answers, "majority").argmax(-1) == labels])


def row(method: str, under: str, found: Tensor, seconds: float) -> dict[str, Any]:
    counts = found.sum(1).tolist()
    cells = {
        reading: {"accuracy": count / found.shape[1], "interval": wilson(count, found.shape[1])}
        for reading, count in zip(READINGS, counts, strict=True)
    }
    printed = "  ".join(f"{cell(cells[reading]):>20}" for reading in READINGS)
    print(f"{method:34}{under:20}{printed}  {seconds:10.0f}", flush=True)
    return {"method": method, "attack": under, **cells}


def cell(found: dict[str, Any]) -> str:
    value, (low, high) = 100 * found["accuracy"], (100 * end for end in found["interval"])
    return f"{value:5.1f} [{low:.1f}, {high:.1f}]"


if __name__ == "__main__":
    main()
