"""How well priors denoise at the same noise, and by how much worse under a wrong class: what feedback listens to.

    python benchmarks/class_gap.py PRIOR [PRIOR ...] [--dataset embedded:digits/validation] [--count 100]

    own     || x0 - x0_hat ||^2 a pixel, of latents, under the true class
    gap     what the mean of the other classes adds to it; its 95 % interval over images, of a normal mean

At signal-to-noise ratios and not at times, which mean other noise to other schedules; all priors meet the same noise.
"""

from __future__ import annotations

import argparse

import torch

from diffcern.data import load_dataset, subset
from diffcern.draws import Draws
from diffcern.likelihood import score
from diffcern.priors import load_prior
from diffcern.rng import generator

LEVELS = (8.0, 2.0, 0.6, 0.2, 0.05, 0.01)  # SNR


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("priors", nargs="+")
    parser.add_argument("--dataset", default="embedded:digits/validation")
    parser.add_argument("--count", type=int, default=100)
    options = parser.parse_args()
    data = subset(load_dataset(options.dataset), options.count, seed=0)
    samples = [data[i] for i in range(len(data))]
    images = torch.stack([sample.image for sample in samples])
    targets = torch.tensor([sample.target for sample in samples])[:, None]
    print(f"{options.dataset}, N = {len(samples)}\n{'prior':40}{'SNR':>6}{'own':>9}{'gap':>9}")
    for name in options.priors:
        prior = load_prior(name)
        latents = prior.latents(images)
        noise = torch.randn(len(latents), 1, *prior.latent_shape, generator=generator(0, "class-gap"))
        for level in LEVELS:
            t = ((prior.alphas / prior.sigmas) ** 2 / level).log().abs().argmin()
            draws = Draws(t.expand(len(latents), 1), noise)
            errors = score(prior, latents, prior.hypotheses(), draws, weighting="x0").mean
            own = errors.gather(1, targets)[:, 0]
            gap = (errors.sum(1) - own) / (errors.shape[1] - 1) - own
            wide = 1.96 * gap.std() / len(gap) ** 0.5
            interval = f"[{gap.mean() - wide:.4f}, {gap.mean() + wide:.4f}]"
            print(f"{name:40}{level:6g}{own.mean():9.4f}{gap.mean():9.4f} {interval}", flush=True)


if __name__ == "__main__":
    main()
