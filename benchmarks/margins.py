"""How the share of the clean images was chosen that a margin is: accuracy of canonical views against it.

    python benchmarks/margins.py [--dataset D --predictor P --prior R --shifts ... --views light,turn --skip 0]

On images that no reported figure uses. Shares: of the clean images, which gain less than the margin; 0 is 3 nats.
"""

from __future__ import annotations

import argparse

import torch

from diffcern import clean_gains
from diffcern.data import load_dataset, subset
from diffcern.data.shifts import shift
from diffcern.methods import build_method
from diffcern.methods.presets import preset_options
from diffcern.predictors import load_predictor
from diffcern.priors import load_prior
from diffcern.tasks import Classification
from diffcern.types import Inputs

DIGITS = ("clean", "contrast", "background", "blur", "clutter", "noise", "occlusion", "pepper", "rotation")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="embedded:digits/validation")
    parser.add_argument("--predictor", default="embedded:digits")
    parser.add_argument("--prior", default="embedded:digits")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--views", default="light,turn")
    parser.add_argument("--shifts", nargs="+", default=DIGITS)
    parser.add_argument("--severity", type=int, default=4)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--skip", type=int, default=0)
    parser.add_argument("--shares", type=float, nargs="+", default=(0.0, 0.5, 0.8, 0.9, 0.95, 1.0))
    given = parser.parse_args()
    predictor, prior = load_predictor(given.predictor), load_prior(given.prior, getattr(torch, given.dtype))
    task = Classification.joining(predictor, prior)
    data = subset(load_dataset(given.dataset), given.count, seed=0, skip=given.skip)
    samples = [data[row] for row in range(len(data))]
    targets = torch.tensor([sample.target for sample in samples])
    for share in given.shares:
        clean_gains.SHARE = share
        options = {**preset_options("canonical", "small"), "views": given.views}
        method, right = build_method("canonical", predictor, prior, task, options), {}
        for name in given.shifts:
            severity = 0 if name == "clean" else given.severity
            images = torch.stack([shift(s.image, name, severity, 0, s.id) for s in samples])
            alone = (Inputs(images[k][None], [s.id]) for k, s in enumerate(samples))  # a batch would be a stream
            said = torch.cat([method.step(method.init(), one, 0)[0].output.argmax(1) for one in alone])
            right[name] = 100 * (said == targets).float().mean().item()
        shifted = [value for name, value in right.items() if name != "clean"]
        cells = "  ".join(f"{name} {value:.1f}" for name, value in right.items())
        print(f"share {share:.2f}: mean {sum(shifted) / len(shifted):.1f}  {cells}", flush=True)


if __name__ == "__main__":
    main()
