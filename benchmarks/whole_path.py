"""The whole path of an image, from its pixels to its answer, against the published loops' schedules: one run.

Published: Diffusion-TTA as in tta_speed.py (5 steps x 180 draws, a predictor pass for every micro-batch, the prior's
gradient too); Diffusion Classifier class after class, 32 draws at a time, CIFAR-10's stages (50, then 500 for five).
Both in float32. Ours has the same draws first, then rounds (bf16), compiles, and at last asks less (the presets).

    python benchmarks/whole_path.py [--count 10] [--prior FOLDER --predictor FOLDER --dataset NAME --shift noise]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from tta_speed import published_loop
from wording import share_of

from diffcern.data import load_dataset, subset
from diffcern.data.shifts import shift
from diffcern.draws import draw
from diffcern.likelihood import denoising_error
from diffcern.methods import build_method, method_class
from diffcern.methods.diffusion_classifier import stage_indices
from diffcern.predictors import Predictor, load_predictor
from diffcern.priors import Prior, load_prior
from diffcern.priors.blocks import compile_regions
from diffcern.tasks import Classification
from diffcern.types import Condition, Inputs

STAGES: dict[str, Any] = {"keep": [5, 1], "samples": [50, 500]}
AT_A_TIME = 32
STEPS, DRAWS = 5, 180


def published_classifier(prior: Prior, image: Tensor, key: str) -> Tensor:
    """The classes' mean errors; one that fell keeps an infinite one."""
    latents, count = prior.encode(image), max(STAGES["samples"])
    draws = draw("even", count, latents, [key], seed=0, num_timesteps=prior.num_timesteps)
    classes = torch.eye(len(prior.class_names))
    errors = torch.full((len(classes), count), torch.nan)
    alive, done = list(range(len(classes))), torch.empty(0, dtype=torch.long)
    for kept, samples in zip(STAGES["keep"], STAGES["samples"], strict=True):
        new = torch.tensor(sorted(set(stage_indices(count, samples)) - set(done.tolist())))
        for k in alive:
            for part in new.split(AT_A_TIME):
                t, noise, z = draws.timesteps[0, part], draws.noise[0, part], latents.expand(len(part), -1, -1, -1)
                denoised = prior(prior.add_noise(z, t, noise), t, Condition(classes=classes[[k]].expand(len(part), -1)))
                errors[k, part] = denoising_error(denoised, z, noise, t / prior.num_timesteps, weighting="x0")
        done, means = torch.cat([done, new]), errors.nanmean(1)
        alive = sorted(alive, key=lambda k: float(means[k]))[:kept]
    return torch.full((len(classes),), torch.inf).index_put((torch.tensor(alive),), means[alive])


def published_adaptation(predictor: Predictor, prior: Prior, image: Tensor, key: str) -> Tensor:
    start = {name: value.clone() for name, value in predictor.state_dict().items()}
    latents = prior.latents(predictor.view(image))
    draws = [
        draw("uniform", DRAWS, latents, [key], seed=0, num_timesteps=prior.num_timesteps, update=i)
        for i in range(STEPS)
    ]
    published_loop(predictor, prior, image, draws, [p.requires_grad_() for p in predictor.parameters()])
    with torch.no_grad():
        answer = predictor(image)[0]
    predictor.load_state_dict(start)
    predictor.requires_grad_(False)
    return answer


def ours(name: str, predictor: Predictor, prior: Prior, options: dict[str, Any]) -> Callable[[Tensor, str], Tensor]:
    method = build_method(name, predictor, prior, Classification(prior.class_names, prior.class_names), options)
    return lambda image, key: method.step(method.init(), Inputs(image, [key]), 0)[0].output[0]


def rows(name: str, predictor: Predictor, prior: Prior) -> Iterator[tuple[str, Callable[[Tensor, str], Tensor]]]:
    """In order: what changes the prior stays for those after it."""
    if name == "diffusion-tta":
        yield "published schedule", lambda image, key: published_adaptation(predictor, prior, image, key)
        same: dict[str, Any] = {"steps": STEPS, "draws": DRAWS, "adapt_prior": False}
        same |= {"optimizer": "adam", "learning_rate": 1e-5}
    else:
        yield "published schedule", lambda image, key: -published_classifier(prior, image, key)
        same = {**STAGES, "strategy": "even", "weighting": "x0"}
    yield "ours, the same draws", ours(name, predictor, prior, same)
    prior.bfloat16()
    yield "... and bf16", ours(name, predictor, prior, same)
    compile_regions(prior.denoiser)
    yield "... and compiled blocks", ours(name, predictor, prior, same)
    task = Classification(prior.class_names, prior.class_names)
    yield "... and preset small", ours(name, predictor, prior, method_class(name).small_options(task))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", default="embedded:digits")
    parser.add_argument("--predictor", default="embedded:digits")
    parser.add_argument("--dataset", default="embedded:digits")
    parser.add_argument("--shift", default="noise", help="severity 4")
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = subset(load_dataset(options.dataset), options.count, seed=0)
    samples = [data[i] for i in range(len(data))]
    images = [(shift(s.image, options.shift, 4, 0, s.id)[None], s.id) for s in samples]
    targets = torch.tensor([s.target for s in samples])
    for name in ("diffusion-tta", "diffusion-classifier"):
        prior, predictor = load_prior(options.prior), load_predictor(options.predictor)
        size = sum(p.numel() for p in prior.denoiser.parameters()) / 1e6
        print(f"{name}: {options.prior} ({size:.1f} M), {options.dataset} under {options.shift}, ", end="")
        print(f"N = {len(images)} one by one, {options.threads} threads")
        print(f"{'':28}{'s/image':>9}{'ratio':>8}{'same answer, %':>22}{'right, %':>22}")
        first: tuple[float, Tensor] | None = None
        for label, answer in rows(name, predictor, prior):
            answer(*images[0])  # compiles, and warms up
            begin = time.perf_counter()
            found = torch.stack([answer(*each).argmax() for each in images])
            seconds = (time.perf_counter() - begin) / len(images)
            first = first or (seconds, found)
            same, right = share_of(found == first[1]), share_of(found == targets)
            print(f"{label:28}{seconds:9.3f}{first[0] / seconds:8.2f}{same:>22}{right:>22}", flush=True)


if __name__ == "__main__":
    main()
