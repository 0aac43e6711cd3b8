"""Probabilities that mean something: one temperature, fitted on images with known answers (Guo et al. 2017,
arXiv 1706.04599).

    p = softmax(l / tau + b)        tau, b = argmin  - sum_i log p_i(y_i)        b = 0 without per_class

A generative classifier's output is a mean error in the shape of logits: its softmax is no probability before this.
What is fitted is kept in `calibration.json` beside the prior, with what it holds for: the method, its options, the
classes and the weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from diffcern.errors import DiffcernError
from diffcern.files import write_whole
from diffcern.texts import read_json

Array = NDArray[Any]
FILE = "calibration.json"
LEAST = 20  # images; fewer say next to nothing about a temperature
FOLDS = 5
BINS = 15
UNSEEN = ("rows", "cache")  # options that change no answer
FOLDERS = ("generated", "aligned", "gains")  # options that name what a method loads itself
LISTS = ("predictor", "prototypes")  # shortlists that read the predictor
STEEPEST, FLATTEST = 1e-2, 1e4  # temperatures


@dataclass(frozen=True)
class Calibration:
    """temperature, bias: see the module; bias is empty, or a number for each class. about: what it holds for, as
    `described` says. images: how many it was fitted on."""

    temperature: float
    bias: tuple[float, ...]
    about: dict[str, Any]
    images: int


def described(
    method: str,
    options: Mapping[str, Any],
    class_names: Sequence[str],
    fingerprints: Mapping[str, str],
    *,
    stream: tuple[str, int] = ("episodic", 1),
    labels: Any = None,
    templates: Sequence[str] | None = None,
    loaded: str = "",
) -> dict[str, Any]:
    """What a calibration holds for, in the types of JSON: options that differ from the method's defaults and change an
    answer, and the weights that it reads. options: of the method, those of its preset among them. stream: protocol and
    images at a time. labels, templates: as the models were told them. loaded: of a method that names folders."""
    from diffcern.methods import method_class, needs
    from diffcern.methods.options import defaults

    usual = defaults(method_class(method))
    kept = {k: v for k, v in options.items() if k not in UNSEEN and _plain(v) != _plain(usual.get(k))}
    texts = [text for text in (labels if isinstance(labels, dict) else None, templates) if text]
    read = {k for k in ("predictor", "prior") if needs(method, k)}
    read |= {"predictor"} if options.get("shortlist") in LISTS or options.get("class_prior") == "predictor" else set()
    prints = {k: v for k, v in fingerprints.items() if k in read}
    said: dict[str, Any] = {"method": method, "options": kept, "class_names": list(class_names)}
    said |= {"fingerprints": prints, "stream": list(stream), "texts": texts}
    said |= {"loaded": loaded} if names_folders(options) else {}
    found: dict[str, Any] = _plain(said)
    return found


def names_folders(options: Mapping[str, Any]) -> bool:
    """Whether the method loads something itself, or the method that answers on its views."""
    after = options.get("then_options")
    return any(map(options.get, FOLDERS)) or bool(after and names_folders(after))


def fit(logits: Array, targets: Array, per_class: bool = False) -> tuple[float, tuple[float, ...]]:
    """(tau, b) of logits `[N, K]`. Raises DiffcernError for fewer than 20 images, answers to one class alone, and for
    answers that are all right: any temperature would be too high for these."""
    check(logits, targets)
    return _fitted(logits, targets, per_class)


def _fitted(logits: Array, targets: Array, per_class: bool) -> tuple[float, tuple[float, ...]]:
    """The same of what was checked, or is a part of that."""
    from scipy.optimize import minimize  # slow to import

    classes = logits.shape[1]

    def loss(numbers: Array) -> float:
        scaled = logits / np.exp(numbers[0]) + (np.append(numbers[1:], 0.0) if per_class else 0.0)
        regular = 0.01 * float(np.square(numbers[1:]).sum()) / len(targets)
        return float(-_log_softmax(scaled)[np.arange(len(targets)), targets].mean()) + regular

    starts = [np.log([tau]) for tau in (0.3, 1.0, 3.0, 10.0, 30.0)]
    first = min(starts, key=loss)
    begin = np.append(first, np.zeros(classes - 1)) if per_class else first
    bounds = [(np.log(STEEPEST), np.log(FLATTEST)), *[(-10.0, 10.0)] * (len(begin) - 1)]
    found = minimize(loss, begin, method="L-BFGS-B", bounds=bounds).x
    bias = np.append(found[1:], 0.0) - np.append(found[1:], 0.0).mean() if per_class else np.zeros(0)
    return round(float(np.exp(found[0])), 6), tuple(np.round(bias, 6).tolist())


def check(logits: Array, targets: Array) -> None:
    """Raises as `fit`."""
    if len(targets) < LEAST:
        raise DiffcernError(f"a temperature takes {LEAST} images with known answers or more, not {len(targets)}")
    if len(np.unique(targets)) < 2:
        raise DiffcernError("all of the images are of one class: a temperature takes images of several")
    if not np.isfinite(logits).all():
        raise DiffcernError("answers are NaN or infinite: check the images and the models' weights")
    if (logits.argmax(1) == targets).all():
        raise DiffcernError(
            f"all {len(targets)} answers are right, and no temperature is low enough for these: give more images, or "
            "harder ones"
        )


def calibrated(logits: Array, temperature: float, bias: Sequence[float] = ()) -> Array:
    """Probabilities `[N, K]`."""
    return np.exp(_log_softmax(logits / temperature + (np.array(bias) if len(bias) else 0.0)))


def held_out(logits: Array, targets: Array, groups: Sequence[str], per_class: bool = False) -> Array:
    """Probabilities `[N, K]` of each image by what was fitted on the others: five folds, those of one group (an image
    under several shifts) together. Raises as `fit`."""
    check(logits, targets)
    names = sorted(set(groups))
    order = np.random.default_rng(0).permutation(len(names))
    fold_of = {name: int(order[k]) % FOLDS for k, name in enumerate(names)}
    folds = np.array([fold_of[name] for name in groups])
    found = np.zeros_like(logits)
    for fold in range(FOLDS):
        inside = folds == fold
        if inside.any():
            found[inside] = calibrated(logits[inside], *_fitted(logits[~inside], targets[~inside], per_class))
    return found


def calibration_error(probabilities: Array, targets: Array) -> float:
    """Expected calibration error of the first answer, 15 bins of equal width (Guo et al. 2017): torchmetrics'."""
    import torch
    from torchmetrics.functional.classification import multiclass_calibration_error

    found = multiclass_calibration_error(
        torch.from_numpy(probabilities), torch.from_numpy(targets), probabilities.shape[1], n_bins=BINS, norm="l1"
    )
    return float(found)


def risk_coverage(confidence: Array, right: Array) -> tuple[Array, Array]:
    """(coverage, risk) `[N]`: answers in order of confidence; of those so far the share of all, and of wrong ones."""
    order = np.argsort(-confidence, kind="stable")
    count = np.arange(1, len(order) + 1)
    return count / len(order), np.cumsum(1.0 - right[order]) / count


def risk_of_half(probabilities: Array, targets: Array) -> float:
    """The share of wrong answers among the surer half."""
    right = (probabilities.argmax(1) == targets).astype(float)
    return float(risk_coverage(probabilities.max(1), right)[1][(len(targets) - 1) // 2])


def interval(values: Array, targets: Array, draws: int = 500) -> tuple[float, float]:
    """A 95 % bootstrap interval over images of the calibration error of probabilities `[N, K]`."""
    rng = np.random.default_rng(0)
    chosen = (rng.integers(0, len(targets), len(targets)) for _ in range(draws))
    low, high = np.quantile([calibration_error(values[some], targets[some]) for some in chosen], [0.025, 0.975])
    return float(low), float(high)


def read(folder: Path) -> tuple[Calibration, ...]:
    """What is kept in a folder, none where there is no file. Raises DiffcernError for another content."""
    path = folder / FILE
    if not path.is_file():
        return ()
    try:
        return TypeAdapter(tuple[Calibration, ...]).validate_python(read_json(path))
    except ValidationError as error:
        raise DiffcernError(f"{path} holds no calibrations: delete it, and run `diffcern calibrate` again") from error


def keep(folder: Path, calibration: Calibration) -> Path:
    """Adds it to those of a folder, in the place of one that holds for the same."""
    others = [known for known in read(folder) if known.about != calibration.about]
    content = [asdict(known) for known in (*others, calibration)]
    write_whole(folder / FILE, (json.dumps(content, indent=1) + "\n").encode())
    return folder / FILE


def _plain(value: Any) -> Any:
    """In the types of JSON."""
    return json.loads(json.dumps(value, sort_keys=True, default=str))


def _log_softmax(values: Array) -> Array:
    shifted = values - values.max(1, keepdims=True)
    log_softmax: Array = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return log_softmax
