"""What adaptation does to features: do shifted images' come nearer to what they are of the clean ones?

    python benchmarks/features.py [--count 40] [--shifts ...] [--predictor P --prior R --dataset D --train D]

    probe      a linear classifier (scikit-learn's logistic regression) fitted to the features of clean training images
    CKA        || Z^T C ||_F^2 / (|| Z^T Z ||_F || C^T C ||_F), centred: Z of shifted, C of the same clean images
               (Kornblith et al. 2019, arXiv 1905.00414); 1: the same up to a rotation and a scale

Features are what the predictor's last linear layer is given; each image is adapted to alone (Diffusion-TTA, preset
small without `familiar`), and C and the probe are those of the predictor as it was. CKA of few images is too
high, before and after alike. 95 % intervals: Wilson's for accuracies,
bootstrap over images (500) for CKA and for differences, which are paired.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch.func import functional_call
from wording import share_of

from diffcern.data import load_dataset, subset
from diffcern.data.shifts import shift
from diffcern.methods import build_method
from diffcern.methods.presets import preset_options
from diffcern.predictors import Predictor, load_predictor
from diffcern.predictors.encoder import Encoder
from diffcern.priors import load_prior
from diffcern.tasks import Classification
from diffcern.types import Inputs

SHIFTS = ("clean", "noise", "pepper", "blur", "contrast", "background", "clutter", "rotation", "occlusion")
RESAMPLES = 500
Array = NDArray[Any]


def features(predictor: Predictor, images: torch.Tensor, weights: dict[str, torch.Tensor] | None = None) -> Array:
    """`[B, D]`; weights: by the predictor's names, of what has moved."""
    encoder = Encoder(predictor)
    moved = {f"predictor.{name}": value for name, value in (weights or {}).items()}
    found: Array = functional_call(encoder, moved, (images,)).double().numpy()
    return found


def cka(a: Array, b: Array) -> float:
    """Linear centred kernel alignment of `[N, D]` and `[N, E]`."""
    a, b = a - a.mean(0), b - b.mean(0)
    cross = np.square(a.T @ b).sum()
    return float(cross / (np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b)))


def alignment(before: Array, after: Array, clean: Array) -> list[str]:
    """The CKA with the clean images' before and after, and how much it has grown."""
    first, second = (lambda rows, v=v: cka(v[rows], clean[rows]) for v in (before, after))
    return [interval(each, len(clean)) for each in (first, second, lambda rows: second(rows) - first(rows))]


def interval(statistic: Any, count: int) -> str:
    """The statistic of all rows, and of resampled ones."""
    rng = np.random.default_rng(0)
    low, high = np.quantile([statistic(rng.integers(0, count, count)) for _ in range(RESAMPLES)], [0.025, 0.975])
    return f"{statistic(np.arange(count)):.3f} [{low:.3f}, {high:.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictor", default="embedded:digits")
    parser.add_argument("--prior", default="embedded:digits")
    parser.add_argument("--dataset", default="embedded:digits")
    parser.add_argument("--train", default="embedded:digits/train", help="clean images that the probe is fitted to")
    parser.add_argument("--fit", type=int, default=1000, help="of them")
    parser.add_argument("--shifts", nargs="+", default=SHIFTS)
    parser.add_argument("--severity", type=int, default=4)
    parser.add_argument("--count", type=int, default=40, help="images of each shift")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    predictor, prior = load_predictor(options.predictor), load_prior(options.prior)
    task = Classification(predictor.class_names, prior.class_names)
    data = subset(load_dataset(options.dataset), options.count, seed=0)
    train = subset(load_dataset(options.train), options.fit, seed=0)
    known = [train[i] for i in range(len(train))]
    points = np.concatenate([features(predictor, sample.image[None]) for sample in known])
    probe = LogisticRegression(max_iter=2000).fit(points, [sample.target for sample in known])
    chosen = preset_options("diffusion-tta", "small", "classification") | {"familiar": None}
    method = build_method("diffusion-tta", predictor, prior, task, chosen)
    clean = [data[i] for i in range(len(data))]
    targets = np.array([sample.target for sample in clean])
    reference = np.concatenate([features(predictor, sample.image[None]) for sample in clean])
    print(f"{options.dataset}, severity {options.severity}: N = {len(data)} of each shift, each adapted to alone")
    head = ("shift", "answers before", "after", "probe before", "after", "CKA before", "after", "difference")
    print(f"{head[0]:12}" + "".join(f"{name:>24}" for name in head[1:]))
    for name in options.shifts:
        before, after, answers = [], [], []
        for sample in clean:
            image = shift(sample.image, name, 0 if name == "clean" else options.severity, 0, sample.id)
            answer, state = method.step(method.init(), Inputs(image[None], [sample.id]), 0)
            with torch.no_grad():
                first = int(predictor(image[None]).argmax())
            answers.append((first == sample.target, int(answer.output.argmax()) == sample.target))
            before.append(features(predictor, image[None]))
            after.append(features(predictor, image[None], dict(state.predictor.parameters)))
        z, w = np.concatenate(before), np.concatenate(after)
        read = [torch.from_numpy(probe.predict(each) == targets) for each in (z, w)]
        cells = [*map(share_of, torch.tensor(answers).T), *map(share_of, read), *alignment(z, w, reference)]
        print(f"{name:12}" + "".join(f"{cell:>24}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
