"""Variance of the condition gradient for each draw strategy and weighting, at the same number of draws.

    python benchmarks/gradient_variance.py [--count 40] [--draws 16] [--repeats 24]

Printed: E ||g - E g||^2 / ||E g||^2 over repeated draws, mean over images. Strategies of one weighting estimate the
same gradient (but "even" and "fixed-bank", which are not random in t); weightings estimate different ones.
"""

from __future__ import annotations

import argparse

import torch

from diffcern.data import load_dataset, subset
from diffcern.data.shifts import shift
from diffcern.draws import draw
from diffcern.likelihood import condition_gradient
from diffcern.predictors import load_predictor
from diffcern.priors import load_prior
from diffcern.types import Condition

STRATEGIES = ("uniform", "stratified", "antithetic", "van-der-corput")
WEIGHTINGS = ("eps", "x0", "v", "min-snr", "exp-7t")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"count": 40, "draws": 16, "repeats": 24, "threads": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = subset(load_dataset("embedded:digits/validation"), options.count, seed=0)
    samples = [data[i] for i in range(len(data))]
    images = torch.stack([shift(s.image, "noise", 3, 0, s.id) for s in samples])
    predictor, prior = load_predictor("embedded:digits"), load_prior("embedded:digits")
    latents = prior.encode(images)
    with torch.no_grad():
        condition = Condition(classes=torch.softmax(predictor(images), -1))
    ids = [s.id for s in samples]
    print(f"{len(ids)} digits (validation, noise 3), {options.draws} draws, {options.repeats} repeats")
    print(f"{'':16}" + "".join(f"{w:>10}" for w in WEIGHTINGS))
    for strategy in STRATEGIES:
        cells = []
        for weighting in WEIGHTINGS:
            gradients = []
            for seed in range(options.repeats):
                draws = draw(strategy, options.draws, latents, ids, seed=seed, num_timesteps=prior.num_timesteps)
                result = condition_gradient(prior, latents, condition, draws, weighting=weighting)
                gradients.append(result.gradient.classes)
            g = torch.stack(gradients)
            g = g - g.mean(-1, keepdim=True)  # only differences between classes move a predictor
            variance = (g - g.mean(0)).square().sum(-1).mean(0) * options.repeats / (options.repeats - 1)
            signal = (g.mean(0).square().sum(-1) - variance / options.repeats).clamp(min=1e-12)
            cells.append((variance / signal).median().item())
        print(f"{strategy:16}" + "".join(f"{value:10.2f}" for value in cells), flush=True)


if __name__ == "__main__":
    main()
