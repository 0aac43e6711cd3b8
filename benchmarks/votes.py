"""Accuracy against evaluations of purification in few steps and of several purified copies that vote.

    python benchmarks/votes.py [--dataset D --predictor P --prior R --shifts clean noise --severity 4 --count 200]

Every row is a method of the library with options; the intervals are Wilson's, 95 %. --out: the rows as JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from diffcern.data import load_dataset, subset
from diffcern.data.shifts import shift
from diffcern.methods import build_method
from diffcern.methods.presets import preset_options
from diffcern.metrics import wilson
from diffcern.predictors import load_predictor
from diffcern.priors import load_prior
from diffcern.tasks import Classification
from diffcern.types import Inputs

ONE = {"steps": 1, "solver": "one-shot"}
MAJORITY = {"copies": 8, "vote": "majority"}
ROWS: list[tuple[str, str, dict[str, Any]]] = [
    ("source", "source", {}),
    ("diffpure, one step", "diffpure", ONE),
    ("diffpure, one step, 4 copies, mean", "diffpure", {**ONE, "copies": 4}),
    ("diffpure, one step, 8 copies, mean", "diffpure", {**ONE, "copies": 8}),
    ("diffpure, one step, 8 copies, majority", "diffpure", {**ONE, **MAJORITY}),
    ("diffpure, 5 steps", "diffpure", {"steps": 5, "solver": "ddpm"}),
    ("diffpure, 5 steps, 4 copies, mean", "diffpure", {"steps": 5, "solver": "ddpm", "copies": 4}),
    ("diffpure, 10 steps", "diffpure", {"steps": 10, "solver": "ddpm"}),
    ("diffpure, 10 steps, 8 copies, mean", "diffpure", {"steps": 10, "solver": "ddpm", "copies": 8}),
    ("diffpure, 10 steps, 8 copies, majority", "diffpure", {"steps": 10, "solver": "ddpm", **MAJORITY}),
    ("diffpure, auto, one step", "diffpure", {**ONE, "start": "auto"}),
    ("diffpure, auto, one step, 4 copies, mean", "diffpure", {**ONE, "start": "auto", "copies": 4}),
    *((f"dda, {steps} steps", "dda", {"steps": steps}) for steps in (1, 2, 3, 5, 10, 20)),
    ("dda, 5 steps, 4 copies, mean", "dda", {"steps": 5, "copies": 4}),
    ("dda, 5 steps, 4 copies, majority", "dda", {"steps": 5, "copies": 4, "vote": "majority"}),
    ("dda, 20 steps, 4 copies, mean", "dda", {"steps": 20, "copies": 4}),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="embedded:digits")
    parser.add_argument("--predictor", default="embedded:digits")
    parser.add_argument("--prior", default="embedded:digits")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--shifts", nargs="+", default=("clean", "noise"))
    parser.add_argument("--severity", type=int, default=4)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--skip", type=int, default=0, help="leave out as many, that a figure is reported on")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(2)
    data = subset(load_dataset(given.dataset), given.count, seed=0, skip=given.skip)
    samples = [data[k] for k in range(len(data))]
    prior, predictor = load_prior(given.prior, getattr(torch, given.dtype)), load_predictor(given.predictor)
    task = Classification.joining(predictor, prior)
    targets = torch.tensor([sample.target for sample in samples])
    rows = []
    print(f"{given.dataset}, severity {given.severity}, N = {len(samples)}, 95 % Wilson intervals")
    for told, name, options in ROWS:
        options = {**preset_options(name, "small"), **options}
        method = build_method(name, predictor, prior, task, options)
        row: dict[str, Any] = {"row": told, "method": name, "options": options}
        for what in given.shifts:
            severity = 0 if what == "clean" else given.severity
            images = torch.stack([shift(s.image, what, severity, 0, s.id) for s in samples])
            answer, _ = method.step(method.init(), Inputs(images, [s.id for s in samples]), 0)
            right = int((answer.output.argmax(1) == targets).sum())
            spent = [cost.nfe_forward for cost in answer.costs]
            row[what] = {"accuracy": right / len(targets), "interval": wilson(right, len(targets))}
            row[what]["evaluations"] = sum(spent) / len(spent)
        rows.append(row)
        cells = (f"{what} {cell(row[what])}" for what in given.shifts)
        print(f"{told:40} {row[given.shifts[-1]]['evaluations']:6.1f} evaluations  {'  '.join(cells)}", flush=True)
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(rows, indent=1) + "\n")


def cell(found: dict[str, Any]) -> str:
    value, (low, high) = 100 * found["accuracy"], (100 * end for end in found["interval"])
    return f"{value:5.1f} [{low:.1f}, {high:.1f}]"


if __name__ == "__main__":
    main()
