"""By how many nats is the likeliest light likelier than none, on clean images and under shifts? What a margin is for.

Under a shift also: by how many nats is it likelier than the light that brings the image nearest to the clean one?
Where that is above 0, the prior takes too much light for more likely than the truth.

python benchmarks/view_gains.py [--model NAME --dataset DATASET --count 24]
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from diffcern.canonical import Search, canonical_view
from diffcern.data import load_dataset
from diffcern.data.shifts import shift
from diffcern.evidence import evidence
from diffcern.predictors import Predictor, load_predictor
from diffcern.priors import Prior, load_prior
from diffcern.resizing import interpolate
from diffcern.transformations import Transformation


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
        gains, over = [], []
        for sample in (data[k] for k in range(options.count)):
            image = shift(sample.image, name, 0 if name == "clean" else options.severity, 0, sample.id)[None]
            with torch.no_grad():
                view = canonical_view(prior, image, sample.id, search, looked_at=predictor.view)
                gains.append(view.nats)
                if name != "clean":
                    views = view.transformation, undoing(image, sample.image[None])
                    chosen, true = (nats(prior, predictor, each, image, sample.id) for each in views)
                    over.append(chosen - true)
        print(f"{name:12}N = {len(gains)}: {spread(gains)}{(over and f'; above the true light: {spread(over)}') or ''}")


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


def nats(prior: Prior, predictor: Predictor, view: Transformation, image: Tensor, id: str) -> float:
    """The evidence of a view from the search's lowest time on, and its log |det J|."""
    channels, rows, columns = prior.latent_shape
    small = interpolate(torch.stack([*predictor.view(image)]), (rows, columns), "bilinear")
    latents = prior.latents(predictor.view(view.apply(image, "nearest")))
    found = evidence(prior, latents, [id], draws=64, low=Search().low, strategy="van-der-corput").nats
    return (found + channels / 3 * view.log_det(small)).item()


if __name__ == "__main__":
    main()
