"""A method over a folder of images of any size: one row each, before and after."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch

from diffcern.data import Dataset, Sample, UnreadableImage, readable
from diffcern.methods import Method
from diffcern.methods.base import call
from diffcern.predictors import Predictor
from diffcern.run.batch import batch_of
from diffcern.types import Inputs, Prediction


def adapt_rows(
    dataset: Dataset,
    method: Method,
    predictor: Predictor,
    *,
    online: bool,
    batch_size: int,
    seed: int,
    device: torch.device,
    done: set[str],
) -> Iterator[dict[str, Any]]:
    """Rows with the label and confidence before and after adaptation, and what it cost; unreadable images too.

    done: ids to leave out, except online, where every image is part of the stream.
    """
    names = predictor.class_names
    state = method.init()
    for samples in in_batches(dataset, batch_size, set() if online else done):
        good = [sample for sample in samples if isinstance(sample, Sample)]
        yield from (unreadable(sample) for sample in samples if isinstance(sample, UnreadableImage))
        if not good:
            continue
        images = batch_of([sample.image for sample in good], predictor).to(device)
        with torch.no_grad():
            before = Prediction(call(predictor, {}, images)).probabilities
        begin = time.perf_counter()
        if not online:
            state = method.init()
        prediction, state = method.step(state, Inputs(images, [sample.id for sample in good]), seed)
        seconds = (time.perf_counter() - begin) / len(good)
        after = prediction.probabilities
        for row, sample in enumerate(good):
            first, last = int(before[row].argmax()), int(after[row].argmax())
            trace = list(prediction.trace[row]) if prediction.trace else []
            yield {
                "id": sample.id,
                "before": names[first],
                "before_confidence": round(float(before[row, first]), 6),
                "after": names[last],
                "after_confidence": round(float(after[row, last]), 6),
                "changed": first != last,
                "loss_first": trace[0] if trace else None,
                "loss_last": trace[-1] if trace else None,
                "steps": len(trace),
                "nfe_forward": prediction.costs[row].nfe_forward,
                "nfe_backward": prediction.costs[row].nfe_backward,
                "seconds": round(seconds, 4),
                "error": None,
            }


def classify_rows(
    dataset: Dataset, method: Method, class_names: tuple[str, ...], *, seed: int, device: torch.device, done: set[str]
) -> Iterator[dict[str, Any]]:
    """Rows with the ranked labels and the margin of the first over the second, with its standard error."""
    for samples in in_batches(dataset, 1, done):
        sample = samples[0]
        if isinstance(sample, UnreadableImage):
            yield unreadable(sample)
            continue
        begin = time.perf_counter()
        inputs = Inputs(sample.image[None].to(device), [sample.id])
        prediction, _ = method.step(method.init(), inputs, seed)
        probabilities = prediction.probabilities[0]
        order = probabilities.argsort(descending=True, stable=True).tolist()
        notes = prediction.notes[0]
        yield {
            "id": sample.id,
            "label": class_names[order[0]],
            "confidence": round(float(probabilities[order[0]]), 6),
            "ranked": ", ".join(f"{class_names[k]} {float(probabilities[k]):.3f}" for k in order[:5]),
            "margin": notes.get("margin"),
            "margin_standard_error": notes.get("margin_standard_error"),
            "nfe_forward": prediction.costs[0].nfe_forward,
            "seconds": round(time.perf_counter() - begin, 4),
            "error": None,
        }


def in_batches(dataset: Dataset, size: int, done: set[str]) -> Iterator[list[Sample | UnreadableImage]]:
    """The images in order, by `size`, those in the place of an error where they cannot be read; without `done`."""
    todo = (item for item in readable(dataset, skip=done))
    while batch := list(islice(todo, size)):
        yield batch


def unreadable(error: UnreadableImage) -> dict[str, Any]:
    """The row of an image that was skipped."""
    return {"id": error.name, "error": error.reason}
