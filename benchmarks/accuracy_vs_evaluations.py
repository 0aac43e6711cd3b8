"""Accuracy against the number of denoiser evaluations, for Diffusion Classifier and Diffusion-TTA.

    python benchmarks/accuracy_vs_evaluations.py [--count 100] [--shift noise] [--severity 4]

An evaluation with gradient counts as three (one forward, about two for the backward).
"""

from __future__ import annotations

import argparse

import torch

from diffcern.adapted import AdaptedModel
from diffcern.data import load_dataset, subset
from diffcern.data.shifts import shift
from diffcern.methods import build_method
from diffcern.methods.presets import preset_options
from diffcern.metrics import wilson
from diffcern.predictors import load_predictor
from diffcern.priors import load_prior
from diffcern.tasks import Classification


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="embedded:digits")
    parser.add_argument("--predictor", default="embedded:digits")
    parser.add_argument("--prior", default="embedded:digits")
    parser.add_argument("--shift", default="noise")
    parser.add_argument("--severity", type=int, default=4)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = subset(load_dataset(options.dataset), options.count, seed=0)
    samples = [data[i] for i in range(len(data))]
    images = torch.stack([shift(s.image, options.shift, options.severity, 0, s.id) for s in samples])
    targets = torch.tensor([s.target for s in samples])
    predictor, prior = load_predictor(options.predictor), load_prior(options.prior)
    task = Classification(predictor.class_names, prior.class_names)
    rows = [("source", {})]
    bank: dict[str, object] = {"stop": "", "strategy": "fixed-bank"}
    rows += [("diffusion-classifier", {"draws": n, **bank}) for n in (1, 2, 4, 8, 16, 32, 64)]
    rows += [("diffusion-classifier", {"keep": [3, 1], "samples": [n, 4 * n], **bank}) for n in (2, 4, 8, 16)]
    rows += [("diffusion-classifier", {"z": z}) for z in (1.0, 1.5, 2.0, 2.5)]
    rows += [("diffusion-tta", {"steps": 5, "draws": n}) for n in (1, 4, 8, 16, 32)]
    rows += [("diffusion-tta", {"steps": 5, "draws": n, "gate": 2.5}) for n in (8, 16, 32)]
    print(f"{options.dataset}, {options.shift} severity {options.severity}, {len(data)} images, 95 % Wilson intervals")
    print(f"{'method':22}{'options':40}{'forward':>8}{'backward':>9}{'cost':>7}{'accuracy':>10}  interval")
    for name, extra in rows:
        method = build_method(name, predictor, prior, task, {**preset_options(name, "small"), **extra})
        model = AdaptedModel(method)
        hits = int((model(images, [s.id for s in samples]).argmax(-1) == targets).sum())
        assert model.prediction is not None
        forward = sum(c.nfe_forward for c in model.prediction.costs) / len(data)
        backward = sum(c.nfe_backward for c in model.prediction.costs) / len(data)
        low, high = wilson(hits, len(data))
        text = ", ".join(f"{k}={v}" for k, v in extra.items())
        print(
            f"{name:22}{text:40}{forward:8.0f}{backward:9.0f}{forward + 2 * backward:7.0f}"
            f"{100 * hits / len(data):9.1f} %  [{100 * low:.1f}, {100 * high:.1f}]",
            flush=True,
        )


if __name__ == "__main__":
    main()
