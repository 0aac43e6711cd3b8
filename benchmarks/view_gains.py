"""By how many nats is the likeliest light likelier than none, on clean images and under shifts? What a margin is for.

python benchmarks/view_gains.py [--model NAME --dataset DATASET --count 24]
"""

from __future__ import annotations

import argparse

import torch

from diffcern.canonical import Search, canonical_view
from diffcern.data import load_dataset
from diffcern.data.shifts import shift
from diffcern.predictors import load_predictor
from diffcern.priors import load_prior


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded:scenes-segmentation", help="predictor and prior")
    parser.add_argument("--dataset", default="embedded:scenes/validation")
    parser.add_argument("--shifts", nargs="+", default=("clean", "contrast", "fog"))
    parser.add_argument("--views", nargs="+", default=("light", "colour"))
    parser.add_argument("--severity", type=int, default=5)
    parser.add_argument("--count", type=int, default=24)
    options = parser.parse_args()
    torch.set_num_threads(2)
    prior, predictor = load_prior(options.model, torch.bfloat16), load_predictor(options.model)
    data, search = load_dataset(options.dataset), Search(families=tuple(options.views), margin=0.0)
    for name in options.shifts:
        gains = []
        for sample in (data[k] for k in range(options.count)):
            image = shift(sample.image, name, 0 if name == "clean" else options.severity, 0, sample.id)[None]
            with torch.no_grad():
                gains.append(canonical_view(prior, image, sample.id, search, looked_at=predictor.view).nats)
        low, middle, high = torch.tensor(gains).quantile(torch.tensor([0.0, 0.5, 1.0])).tolist()
        print(f"{name:12}N = {len(gains)}: {low:.0f} to {high:.0f} nats, median {middle:.0f}", flush=True)


if __name__ == "__main__":
    main()
