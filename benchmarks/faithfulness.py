"""Does a text-to-image prior draw what captions say? How often an answerer that knows scenes agrees with the captions.

    python benchmarks/faithfulness.py --predictor embedded:scenes-answerer --prior embedded:scenes-text --scales 1 2 4

SDA for questions trusts the captions of its generated images: where the generator draws something else, its labels are
wrong. Captions of embedded:scenes/validation and the questions that they answer; right answers in %, by kind of
question and guidance scale, with 95 % Wilson intervals. No more can be expected than what it reaches on real images.
"""

from __future__ import annotations

import argparse
from collections import defaultdict

import torch
from rich.console import Console
from rich.table import Table

from diffcern.metrics import wilson
from diffcern.predictors.question_answering import Answerer, load_answerer
from diffcern.priors import TextPrior, load_prior
from diffcern.sampling import sample
from diffcern.train.materials.captions import Drawing, drawings_of

BATCH = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictor", required=True)
    parser.add_argument("--prior", required=True)
    parser.add_argument("--scales", nargs="+", type=float, default=[1.0, 2.0, 4.0])
    parser.add_argument("--count", type=int, default=160, help="captions")
    parser.add_argument("--steps", type=int, default=25)
    options = parser.parse_args()
    answerer, prior = load_answerer(options.predictor), load_prior(options.prior)
    if not isinstance(prior, TextPrior):
        raise SystemExit(f"{options.prior} does not read captions: give a text-to-image prior")
    told = drawings_of("embedded:scenes/validation", options.count, 0)
    found = [agreement(answerer, prior, told, scale, options.steps) for scale in options.scales]
    table = Table("question", "N", *(f"guidance {scale:g}" for scale in options.scales), box=None)
    for kind in sorted(found[0]):
        cells = [[100 * value for value in (sum(hits[kind]) / len(hits[kind]), *of(hits[kind]))] for hits in found]
        table.add_row(kind, str(len(found[0][kind])), *(f"{v:.1f} [{low:.1f}, {high:.1f}]" for v, low, high in cells))
    Console().print(table)


def of(hits: list[bool]) -> tuple[float, float]:
    """Wilson's interval."""
    low, high = wilson(sum(hits), len(hits))
    return low, high


@torch.no_grad()
def agreement(
    answerer: Answerer, prior: TextPrior, told: list[Drawing], scale: float, steps: int
) -> dict[str, list[bool]]:
    """By kind of question, whether the answer about each drawn image is what its caption says."""
    right = defaultdict(list)
    for start in range(0, len(told), BATCH):
        batch = told[start : start + BATCH]
        condition = prior.prompts([item.caption for item in batch])
        ids = [item.id for item in batch]
        latents = sample(prior, ids, condition, steps=steps, solver="ddim", guidance_scale=scale, seed=0)
        drawn = prior.decode(latents).clamp(0, 1)
        for image, item in zip(drawn, batch, strict=True):
            questions, truths, choices, kinds = zip(*item.questions, strict=True)
            best = answerer(image.expand(len(questions), -1, -1, -1), questions, choices).argmax(1).tolist()
            for kind, truth, words, k in zip(kinds, truths, choices, best, strict=True):
                right[kind].append(words[k] == truth)
    return dict(right)


if __name__ == "__main__":
    main()
