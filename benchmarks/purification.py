"""What noising and denoising does to a predictor's accuracy, without guide or ensemble.

    python benchmarks/purification.py start   [--count 200] [--out FOLDER]    against t*, on clean images
    python benchmarks/purification.py solvers [--count 200] [--out FOLDER]    against evaluations, at one t*, per solver

Source images only, so that whatever is lost is lost to the prior. --predictor: a second one (that of `diffcern align`)
can be set beside it with --aligned. --out: a plot (PNG) and the rows (JSON).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from diffcern.data import load_dataset, subset
from diffcern.data.shifts import shift
from diffcern.methods.base import call
from diffcern.metrics import wilson
from diffcern.predictors import Predictor, load_predictor
from diffcern.priors import load_prior
from diffcern.purifier import Purifier, Route
from diffcern.solvers import DIFFUSION, ONE_SHOT

STARTS = (0, 99, 199, 299, 399, 499, 599, 699, 799, 899)
STEPS = (1, 2, 3, 5, 10, 20, 50)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("start", "solvers"))
    parser.add_argument("--dataset", default="embedded:digits")
    parser.add_argument("--predictor", default="embedded:digits")
    parser.add_argument("--aligned", help="another predictor, shown beside the first")
    parser.add_argument("--prior", default="embedded:digits")
    parser.add_argument("--shift", default="clean")
    parser.add_argument("--severity", type=int, default=0)
    parser.add_argument("--start", type=int, default=399, help="t* of `solvers`")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = subset(load_dataset(options.dataset), options.count, seed=0)
    samples = [data[i] for i in range(len(data))]
    images = torch.stack([shift(s.image, options.shift, options.severity, 0, s.id) for s in samples])
    ids, targets = [s.id for s in samples], torch.tensor([s.target for s in samples])
    predictors = {"source": load_predictor(options.predictor)}
    if options.aligned:
        predictors["aligned"] = load_predictor(options.aligned)
    prior = load_prior(options.prior)
    routes = starts() if options.what == "start" else solvers(options.start)
    print(f"{options.dataset}, {options.shift} {options.severity}, {len(data)} images, 95 % Wilson intervals")
    print("not purified: " + ", ".join(cell(name, hits(model, images, targets)) for name, model in predictors.items()))
    rows = []
    for route in routes:
        purified = Purifier(prior, route)(images, ids)
        row: dict[str, Any] = {**vars(route), "evaluations": route.evaluations(prior), "n": len(data)}
        row["rmse"] = (purified - prior.decode(prior.encode(images))).pow(2).mean().sqrt().item()
        row |= {name: hits(model, purified, targets) for name, model in predictors.items()}
        row["another"] = another(predictors["source"], purified, targets)
        rows.append(row)
        told = f"t* {route.start:4}  {route.solver:18} {row['evaluations']:4} evaluations  rmse {row['rmse']:.3f}  "
        told += "  ".join(cell(name, row[name]) for name in predictors)
        print(f"{told}  surely another class {100 * row['another']:4.1f} %", flush=True)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / f"{options.what}.json").write_text(json.dumps(rows, indent=1) + "\n")
        plot(rows, options.what, list(predictors)).savefig(options.out / f"{options.what}.png", dpi=150)


def starts() -> list[Route]:
    """Ancestral steps of about 20 timesteps each, so that only t* differs."""
    return [Route(start, max(1, (start + 1) // 20)) for start in STARTS]


def solvers(start: int) -> list[Route]:
    """Every diffusion solver in every number of steps."""
    return [Route(start, 1, ONE_SHOT), *(Route(start, steps, name) for name in DIFFUSION for steps in STEPS)]


def hits(model: Predictor, images: Tensor, targets: Tensor) -> tuple[float, float, float]:
    """Accuracy with its interval."""
    with torch.no_grad():
        right = int((call(model, {}, images).argmax(1) == targets).sum())
    return (right / len(targets), *wilson(right, len(targets)))


def another(model: Predictor, images: Tensor, targets: Tensor) -> float:
    """The share of images that the predictor takes for another class with a confidence above 0.9."""
    with torch.no_grad():
        confidence, answer = call(model, {}, images).softmax(1).max(1)
    return float(((answer != targets) & (confidence > 0.9)).float().mean())


def cell(name: str, accuracy: tuple[float, float, float]) -> str:
    value, low, high = (100 * number for number in accuracy)
    return f"{name} {value:5.1f} % [{low:.1f}, {high:.1f}]"


def plot(rows: list[dict[str, Any]], what: str, names: list[str]) -> Figure:
    """Accuracy with intervals against t*, or against evaluations for each solver."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    groups = dict.fromkeys(names, rows)
    if what == "solvers":
        groups = {solver: [row for row in rows if row["solver"] == solver] for solver in (*DIFFUSION, ONE_SHOT)}
    for index, (label, points) in enumerate(groups.items()):
        name = label if what == "start" else names[0]
        x = [point["start" if what == "start" else "evaluations"] for point in points]
        value, low, high = (torch.tensor([point[name][i] for point in points]) * 100 for i in range(3))
        (line,) = axes.plot(x, value, marker="osD^vPX"[index], markersize=4, linewidth=1.2, label=label)
        axes.fill_between(x, low, high, color=line.get_color(), alpha=0.12, linewidth=0)
    axes.set(ylim=(0, 102), ylabel="accuracy, %")
    axes.set_xlabel("t* of 1000" if what == "start" else "denoiser evaluations per image")
    if what == "solvers":
        axes.set_xscale("log")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    main()
