"""What is the averaging of a prior's weights worth, and would a longer or a shorter one be worth more?

    python benchmarks/averages.py RUN_DIR DATASET [--count 200] [--shares 0 0.5 1 1.5] [--threads 2]

RUN_DIR is of `diffcern train prior`, with its checkpoint. Share 0 are the last weights, 1 the averaged ones, which
are what is saved; between and beyond lie the weights that a shorter or a longer horizon would give, to first order.
error: of noise as trained, under the true class, at 32 times in 0.4 to 1, paired against share 1; right: Diffusion
Classifier's 64 draws in a race. Images should be others than those of training.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from wording import share_of

from diffcern.data import load_dataset, subset
from diffcern.draws import draw
from diffcern.likelihood import score
from diffcern.methods.diffusion_classifier import DiffusionClassifier
from diffcern.priors import load_prior
from diffcern.tasks import Classification
from diffcern.train.loop import CHECKPOINT
from diffcern.types import Inputs

ASKED = {"draws": 64, "weighting": "min-snr", "span": (0.4, 1.0), "strategy": "van-der-corput", "stop": "race"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("dataset")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--shares", type=float, nargs="+", default=(0.0, 0.5, 1.0, 1.5))
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    state = torch.load(options.run / CHECKPOINT, map_location="cpu", weights_only=True)
    averaged, names = state["ema"]["shadow_params"], [*state["model"]]
    prior = load_prior(str(options.run), torch.bfloat16)
    data = subset(load_dataset(options.dataset, class_names=prior.class_names), options.count, seed=0)
    samples = [data[row] for row in range(len(data))]
    inputs = Inputs(torch.stack([s.image for s in samples]), [s.id for s in samples])
    targets = torch.tensor([s.target for s in samples])
    method = DiffusionClassifier(prior, Classification(prior.class_names, prior.class_names), **ASKED)
    found = {}
    for share in sorted({1.0, *options.shares}, key=lambda share: abs(share - 1)):  # the averaged ones first
        mixed = [last + share * (mean - last) for last, mean in zip(state["model"].values(), averaged, strict=True)]
        weights = dict(zip(names, mixed, strict=True))
        method.prior.load_state_dict({name: weights[name] for name in method.prior.state_dict()})
        found[share] = errors(method.prior, inputs, targets)
        difference = found[share] - found[1.0]
        wide = 1.96 * difference.std() / len(difference) ** 0.5
        right = share_of(method.step(None, inputs, 0)[0].output.argmax(-1) == targets)
        interval = f"[{difference.mean() - wide:+.5f}, {difference.mean() + wide:+.5f}]"
        print(
            f"share {share:4.2f}: error {found[share].mean():.5f}, to share 1 {difference.mean():+.5f} {interval}; ",
            end="",
        )
        print(f"right {right} %, N = {len(targets)}", flush=True)


def errors(prior: torch.nn.Module, inputs: Inputs, targets: torch.Tensor) -> torch.Tensor:
    """Of each image, in the mean over draws."""
    latents = prior.latents(inputs.images)
    draws = draw("even", 32, latents, inputs.ids, seed=0, num_timesteps=prior.num_timesteps, span=(0.4, 1.0))
    asked = score(prior, latents, prior.hypotheses(), draws, candidates=targets[:, None], weighting="min-snr")
    return asked.mean[:, 0]


if __name__ == "__main__":
    main()
