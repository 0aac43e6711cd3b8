"""Why feedback to maps helps or hurts: what a prior makes of the true map, of the predicted, of a flat one, of none.

    python benchmarks/map_likelihood.py embedded:scenes/validation --predictor embedded:scenes-segmentation \
        --prior embedded:scenes-segmentation --shifts clean gaussian_noise fog [--count 12]

Prints the denoising error of x0, times 1000, in sixths of the time from little noise to much, mean over the images, and
of how many images a map has the least. Where the true map explains a shifted image worse than a flat one, gradients of
this error lead away from the truth, whatever the optimiser. Flat: the commonest class, or the mean depth, everywhere.
"""

from __future__ import annotations

import argparse

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from diffcern.data import Sample, load_dataset, subset
from diffcern.data.base import VOID
from diffcern.data.shifts import shift
from diffcern.draws import draw
from diffcern.likelihood import score
from diffcern.predictors import Predictor, load_predictor
from diffcern.priors import Prior, load_prior
from diffcern.tasks import Depth, Segmentation, task_of
from diffcern.tasks.depth import filled
from diffcern.types import Condition

MAPS = ("true", "predicted", "flat", "none")
PARTS, DRAWS = 6, 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--predictor", required=True)
    parser.add_argument("--prior", required=True)
    parser.add_argument("--shifts", nargs="+", default=["clean", "gaussian_noise", "fog", "contrast"])
    parser.add_argument("--severity", type=int, default=5)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--class-names", default="", help="comma-separated, where the data name none")
    options = parser.parse_args()
    predictor, prior = load_predictor(options.predictor), load_prior(options.prior)
    names = options.class_names.split(",") if options.class_names else None
    whole = load_dataset(options.dataset, mask_names=names)
    if predictor.task == "segmentation":  # masks are told in the order of the predictor's classes
        predictor = predictor.restrict(getattr(whole, "mask_names", ()))
    data = subset(whole, options.count, seed=0)
    table = Table("shift", "map", *(f"{part + 1}/{PARTS}" for part in range(PARTS)), "mean", "wins", box=None)
    for name in options.shifts:
        severity = 0 if name == "clean" else options.severity
        found = []
        for row in range(len(data)):
            sample = data[row]
            image = shift(sample.image, name, severity, seed=0, id=sample.id)
            found.append(errors(predictor, prior, sample, image))
        error = 1000 * torch.stack(found)  # [N, maps, parts]
        best = error.mean(-1).argmin(1)
        for k, kind in enumerate(MAPS):
            values = [f"{value:.2f}" for value in (*error[:, k].mean(0).tolist(), error[:, k].mean().item())]
            table.add_row(name, kind, *values, f"{int((best == k).sum())}/{len(data)}")
    Console().print(table)


@torch.no_grad()
def errors(predictor: Predictor, prior: Prior, sample: Sample, image: Tensor) -> Tensor:
    """`[maps, parts]`: the error under each of `MAPS` in each part of the time, the same draws for all."""
    task = task_of(predictor, prior)
    latents = prior.encode(image[None])
    if isinstance(task, Depth):
        if sample.depth is None:
            raise SystemExit(f"{sample.id} has no depth")
        truth = filled(sample.depth)
        flat = truth.mean().expand_as(truth)
    else:
        assert isinstance(task, Segmentation)  # maps are one or the other
        if sample.mask is None:
            raise SystemExit(f"{sample.id} has no mask")
        truth = sample.mask
        flat = torch.full_like(truth, int(truth[truth != VOID].mode().values))
    predicted = task.condition(predictor(image[None]))
    told = [
        task.condition_of_truth(truth[None]).spatial,
        predicted.spatial,
        task.condition_of_truth(flat[None]).spatial,
    ]
    maps = torch.cat([value for value in told if value is not None])
    conditions = Condition(spatial=torch.cat([maps, torch.zeros_like(maps[:1])]))
    draws = draw("stratified", DRAWS, latents, [sample.id], seed=0, num_timesteps=prior.num_timesteps)
    found = score(prior, latents, conditions, draws, weighting="x0").errors[0]  # [maps, draws]
    order = draws.timesteps[0].argsort()
    return found[:, order].view(len(MAPS), PARTS, -1).mean(-1)


if __name__ == "__main__":
    main()
