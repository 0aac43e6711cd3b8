"""By how many nats is the likeliest light likelier than none, on clean images and under shifts? What a margin is for.

Under a shift also: by how many nats is it likelier than the light that brings the image nearest to the clean one?
Where that is above 0, the prior takes too much light for more likely than the truth.

python benchmarks/view_gains.py [--model NAME --dataset DATASET --count 24]
python benchmarks/view_gains.py --runs RUN_DIR [RUN_DIR ...] [--entry canonical --shifts clean contrast fog]

--runs: the same of records, as far as they say it: how many images another light was taken for, how often the answer
was right there, and by how many nats.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pyarrow.parquet as pq
import torch
from torch import Tensor
from wording import share

from diffcern.canonical import Search, canonical_view
from diffcern.data import load_dataset
from diffcern.data.shifts import shift
from diffcern.predictors import Predictor, load_predictor
from diffcern.priors import Prior, load_prior
from diffcern.transformations import Transformation
from diffcern.weighing import Scale

UNCHANGED = 0.01  # a gain of 1, to rounding


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded:scenes-segmentation", help="predictor and prior")
    parser.add_argument("--dataset", default="embedded:scenes/validation")
    parser.add_argument("--shifts", nargs="+", default=("clean", "contrast", "fog"))
    parser.add_argument("--views", nargs="+", default=("colour", "haze"))
    parser.add_argument("--severity", type=int, default=5)
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--runs", type=Path, nargs="+")
    parser.add_argument("--entry", default="canonical")
    options = parser.parse_args()
    for run in options.runs or ():
        recorded(run, options.entry, options.shifts)
    if options.runs:
        return
    torch.set_num_threads(2)
    prior, predictor = load_prior(options.model, torch.bfloat16), load_predictor(options.model)
    data, search = load_dataset(options.dataset), Search(families=tuple(options.views), margin=0.0, budget=160)
    for name in options.shifts:
        gains, above = [], []
        for sample in (data[k] for k in range(options.count)):
            image = shift(sample.image, name, 0 if name == "clean" else options.severity, 0, sample.id)[None]
            with torch.no_grad():
                view = canonical_view(prior, image, sample.id, search, looked_at=predictor.view)
                gains.append(view.nats)
                if name != "clean":
                    true = undoing(image, sample.image[None])
                    above.append(over(prior, predictor, view.transformation, true, image))
        said = f"; above the true light: {spread(above)}" if above else ""
        print(f"{name:12}N = {len(gains)}: {spread(gains)}{said}")


def recorded(run: Path, entry: str, shifts: list[str]) -> None:
    for name in shifts:
        files = sorted((run / "records").glob(f"{entry}--{name}-*.parquet"))
        rows = [row for file in files for row in pq.read_table(file).to_pylist()]
        notes = [json.loads(row["notes"]) for row in rows]
        taken = [row for row, note in zip(rows, notes, strict=True) if abs(note["view_gain"] - 1) > UNCHANGED]
        right = sum(row["prediction"] == row["target"] for row in taken)
        print(
            f"{run.name}, {entry} on {name}, N = {len(rows)}: another contrast in {share(len(taken), len(rows))} %, "
            f"right there {share(right, len(taken))} %; {spread([note['view_nats'] for note in notes])}"
        )


def spread(values: list[float]) -> str:
    low, middle, high = torch.tensor(values).quantile(torch.tensor([0.0, 0.5, 1.0])).tolist()
    return f"{low:.0f} to {high:.0f} nats, median {middle:.0f}"


def undoing(image: Tensor, clean: Tensor) -> Transformation:
    """The gain and offset of each channel that bring the image nearest to the clean one (least squares)."""
    found = []
    for shifted, wanted in zip(image[0].flatten(1).double(), clean[0].flatten(1).double(), strict=True):
        inputs = torch.stack([shifted, torch.ones_like(shifted)], 1)
        found.append(torch.linalg.lstsq(inputs, wanted[:, None]).solution.flatten().tolist())
    (a, b, c), (d, e, f) = ([pair[0] for pair in found], [pair[1] for pair in found])
    return Transformation((max(a, 1e-3), max(b, 1e-3), max(c, 1e-3)), (d, e, f))


def over(prior: Prior, predictor: Predictor, chosen: Transformation, true: Transformation, image: Tensor) -> float:
    """By how many nats the first is likelier than the second, from the search's lowest time on."""
    scale = Scale(prior, image, predictor.view, "over", 0, Search())
    nats = scale.weigh([chosen, true], scale.draws(64), scale.level([chosen, true], Search().low)).mean(1)
    return (nats[0] - nats[1]).item()


if __name__ == "__main__":
    main()
