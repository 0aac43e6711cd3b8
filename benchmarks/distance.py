"""How far images are from what a prior was trained on: its denoising errors beside those of its clean images.

    python benchmarks/distance.py --prior R --predictor P --dataset D [--count 60] [--shifts clean noise ...]

    unfamiliar   share of images whose error e (`diffcern.familiarity`) is beyond those of 99 % of the prior's clean
                 images, which is where `familiar = 0.99` lets feedback act; Wilson's interval
    error        the median e, in medians of the prior's clean images

Under the predictor's own answer, as Diffusion-TTA's preset asks first (softmax at temperature 2).
"""

from __future__ import annotations

import argparse

import torch
from wording import share_of

from diffcern.data import load_dataset, subset
from diffcern.data.shifts import shift
from diffcern.familiarity import asked_strangeness, threshold
from diffcern.methods.diffusion_tta import SMALL
from diffcern.predictors import load_predictor
from diffcern.priors import load_prior
from diffcern.tasks import Classification

SHIFTS = ("clean", "noise", "pepper", "blur", "contrast", "background", "clutter", "rotation", "occlusion")


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", default="embedded:digits")
    parser.add_argument("--predictor", default="embedded:digits")
    parser.add_argument("--dataset", default="embedded:digits")
    parser.add_argument("--shifts", nargs="+", default=SHIFTS)
    parser.add_argument("--severity", type=int, default=4)
    parser.add_argument("--count", type=int, default=60, help="images of each shift")
    options = parser.parse_args()
    predictor, prior = load_predictor(options.predictor), load_prior(options.prior)
    task = Classification(predictor.class_names, prior.class_names)
    data = subset(load_dataset(options.dataset), options.count, seed=0)
    clean = [data[i] for i in range(len(data))]
    usual, bound = threshold(prior, 0.5), threshold(prior, 0.99)
    print(f"{options.dataset} and {options.prior}, severity {options.severity}: N = {len(clean)} of each shift")
    print(f"{'shift':12}{'unfamiliar, %':>24}{'error':>8}")
    for name in options.shifts:
        severity = 0 if name == "clean" else options.severity
        images = torch.stack([shift(sample.image, name, severity, 0, sample.id) for sample in clean])
        condition = task.condition(predictor(images) / SMALL["temperature"])
        errors = asked_strangeness(prior, prior.latents(images), condition, [sample.id for sample in clean])
        print(f"{name:12}{share_of(errors > bound):>24}{errors.median().item() / usual:8.2f}", flush=True)


if __name__ == "__main__":
    main()
