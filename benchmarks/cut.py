"""How far is the gradient of the condition off, and how much sooner there, where early blocks are cut out of it?

    python benchmarks/cut.py [--count 24]

Cosines with the whole gradient from the same 16 draws (x0 weighting, at the even mixture, centred over the classes),
medians over clean validation images; "other draws" is what drawing again changes. time: of the whole one's.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor

from diffcern.data import load_dataset, subset
from diffcern.draws import draw
from diffcern.likelihood import condition_gradient
from diffcern.methods.base import frozen_view
from diffcern.priors import Prior, load_prior
from diffcern.priors.blocks import cut_backward
from diffcern.types import Condition

WORLDS = {
    "embedded:digits": "embedded:digits/validation",
    "embedded:digit-triples": "embedded:digit-triples/validation",
    "weights/cifar10-prior": "parquet:../shared/data/cifar10/test.parquet",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=24)
    options = parser.parse_args()
    print(f"{'':26}{'other draws':>12}{'bf16':>8}{'cut 0.25':>10}{'time':>6}{'cut 0.5':>9}{'time':>6}")
    for name, source in WORLDS.items():
        prior, data = load_prior(name), subset(load_dataset(source), options.count, seed=1)
        samples = [data[i] for i in range(len(data))]
        latents, ids = prior.latents(torch.stack([s.image for s in samples])), [s.id for s in samples]
        whole, seconds = gradient(prior, latents, ids)
        cells = [f"{cosine(whole, gradient(prior, latents, ids, seed=1)[0]):12.3f}"]
        cells.append(f"{cosine(whole, gradient(load_prior(name, torch.bfloat16), latents, ids)[0]):8.4f}")
        for share, width in ((0.25, 10), (0.5, 9)):
            cut = frozen_view(prior)
            cut_backward(cut.denoiser, share)
            found, taken = gradient(cut, latents, ids)
            cells.append(f"{cosine(whole, found):{width}.3f}{taken / seconds:6.2f}")
        print(f"{name:26}{''.join(cells)}", flush=True)


def gradient(prior: Prior, latents: Tensor, ids: list[str], seed: int = 0) -> tuple[Tensor, float]:
    """Of each image, and the seconds of a second call."""
    even = Condition(classes=torch.full((len(latents), len(prior.class_names)), 1 / len(prior.class_names)))
    draws = draw("stratified", 16, latents, ids, seed=seed, num_timesteps=prior.num_timesteps)
    for _ in range(2):
        begin = time.perf_counter()
        found = condition_gradient(prior, latents, even, draws, weighting="x0").gradient.classes
        seconds = time.perf_counter() - begin
    assert found is not None
    return found - found.mean(1, keepdim=True), seconds


def cosine(first: Tensor, second: Tensor) -> float:
    return torch.cosine_similarity(first, second).median().item()


if __name__ == "__main__":
    main()
