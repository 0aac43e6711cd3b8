"""How many evaluations a generative answer needs: exhaustive, staged, raced, shortlisted and raced.

    python benchmarks/racing.py [--dataset embedded:digits] [--prior embedded:digits] [--count 40] [--shifts ...]

"same" is the share of images that get the answer of all classes at all 64 draws, the same draws; an evaluation with
gradient counts as three. Rows are compared side by side on the same images; seconds are of this machine.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from wording import share_of

from diffcern.data import load_dataset, subset
from diffcern.data.shifts import shift
from diffcern.methods.diffusion_classifier import DiffusionClassifier
from diffcern.priors import load_prior
from diffcern.tasks import Classification
from diffcern.types import Inputs

SHIFTS = ("clean", "noise", "pepper", "blur", "contrast", "background", "clutter", "rotation", "occlusion")
DRAWS = 64
OTHERS = "exhaustive, 64 other draws"  # how well defined the answer is, which the others are held against
PRESET = "race, z 2, first 0.4 1"  # whose shifts are shown one by one


def variants(classes: int) -> dict[str, dict[str, Any]]:
    """Options over those that all have; the first is what the others are held against."""
    first = {"stop": "race", "first": (0.4, 1.0)}
    lists = [(4, 4), (8, 5)] if classes < 20 else [(4, 5), (8, 5), (8, 10), (16, 10), (16, 20)]
    return {
        "exhaustive, 64 draws": {},
        OTHERS: {},
        "exhaustive, 16 draws": {"draws": 16},
        "staged, 4 1 of 4 16": {"keep": (4, 1), "samples": (4, 16)},
        "race, z 2": {"stop": "race"},
        "race, z 1.5, first 0.4 1": {**first, "z": 1.5},
        PRESET: first,
        "race, z 2.5, first 0.4 1": {**first, "z": 2.5},
        "race, risk 0.05": {"stop": "race", "risk": 0.05, "first": (0.4, 1.0)},
        **{
            f"gradient {draws} draws to {size}, race": {
                **first,
                "shortlist": "gradient",
                "shortlist_size": size,
                "shortlist_draws": draws,
            }
            for draws, size in lists
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="embedded:digits")
    parser.add_argument("--prior", default="embedded:digits")
    parser.add_argument("--weighting", default="x0")
    parser.add_argument("--shifts", nargs="+", default=SHIFTS)
    parser.add_argument("--severity", type=int, default=4)
    parser.add_argument("--count", type=int, default=40, help="images of each shift")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--leave-out", nargs="*", default=(), help="rows whose names begin so")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data, prior = subset(load_dataset(options.dataset), options.count, seed=0), load_prior(options.prior)
    task = Classification(prior.class_names, prior.class_names)
    batches = [inputs_of(data, name, options.severity) for name in options.shifts]
    targets = torch.tensor([data[i].target for i in range(len(data))]).repeat(len(batches))
    print(f"{options.dataset}, {', '.join(options.shifts)}, severity {options.severity}: N = {len(targets)}")
    print(f"{'':36}{'evaluations':>12}{'same, %':>22}{'right, %':>22}{'seconds':>9}{'speed':>7}")
    reference: tuple[torch.Tensor, float] | None = None
    by_shift: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for name, changes in variants(len(prior.class_names)).items():
        if name.startswith(tuple(options.leave_out)) and reference is not None:
            continue
        strategy = "even" if "keep" in changes else "van-der-corput"
        given = {"draws": DRAWS, "weighting": options.weighting, "strategy": strategy, **changes}
        method = DiffusionClassifier(prior, task, **given)
        begin = time.perf_counter()
        answers = [method.step(None, batch, int(name == OTHERS))[0] for batch in batches]
        seconds = time.perf_counter() - begin
        found = torch.cat([answer.output.argmax(-1) for answer in answers])
        reference = reference or (found, seconds)
        costs = [cost.nfe_forward + 2 * cost.nfe_backward for answer in answers for cost in answer.costs]
        same, right = share_of(found == reference[0]), share_of(found == targets)
        mean = sum(costs) / len(costs)
        print(f"{name:36}{mean:12.1f}{same:>22}{right:>22}{seconds:9.1f}{reference[1] / seconds:7.1f}", flush=True)
        by_shift[name] = torch.tensor(costs).view(len(batches), -1), (found == reference[0]).view(len(batches), -1)
    print(f"by shift: {'same with ' + OTHERS.partition(', ')[2]:>26}{'evaluations, ' + PRESET:>40}{'same':>22}")
    for number, shift_name in enumerate(options.shifts):
        (_, others), (cost, same_) = by_shift[OTHERS], by_shift[PRESET]
        shares = share_of(others[number]), f"{cost[number].float().mean():.1f}", share_of(same_[number])
        print(f"{shift_name:14}{shares[0]:>22}{shares[1]:>40}{shares[2]:>22}")


def inputs_of(data: Any, name: str, severity: int) -> Inputs:
    samples = [data[i] for i in range(len(data))]
    images = [shift(s.image, name, 0 if name == "clean" else severity, 0, s.id) for s in samples]
    return Inputs(torch.stack(images), [s.id for s in samples])


if __name__ == "__main__":
    main()
