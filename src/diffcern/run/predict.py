"""A method over a folder of images of any size: one row each, before and after."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffcern.data import Dataset, Sample, UnreadableImage, readable
from diffcern.errors import UsageError
from diffcern.methods import Method
from diffcern.methods.base import call
from diffcern.predictors import Predictor
from diffcern.run.batch import ALONE, batch_of, even_batches
from diffcern.types import Inputs, Prediction

UNSURE = "unsure"


@dataclass(frozen=True)
class Answer:
    """What a method answered for one image. before: the predictor's output `[...]`; row: of the image in prediction;
    batch: how many images lent their statistics, None where the method reads none."""

    sample: Sample
    before: Tensor
    prediction: Prediction
    row: int
    seconds: float
    batch: int | None = None

    @property
    def cost(self) -> dict[str, Any]:
        """The columns that every table of answers ends with."""
        trace = list(self.prediction.trace[self.row]) if self.prediction.trace else []
        return {
            "loss_first": trace[0] if trace else None,
            "loss_last": trace[-1] if trace else None,
            "steps": len(trace),
            "nfe_forward": self.prediction.costs[self.row].nfe_forward,
            "nfe_backward": self.prediction.costs[self.row].nfe_backward,
            **({} if self.batch is None else {"batch": self.batch}),
            "seconds": round(self.seconds, 4),
            "error": None,
        }


def answers(
    dataset: Dataset,
    method: Method,
    predictor: Predictor,
    *,
    online: bool,
    batch_size: int,
    seed: int,
    device: torch.device,
    todo: Sequence[int],
) -> Iterator[Answer | UnreadableImage]:
    """Every image's answer, in order of batches, the last two of which share what is left; the error of one that cannot
    be read, or is the only one left of a batch whose statistics are needed.

    todo: rows of the data set, in their order; online all of them, as every image is part of the stream.
    """
    state, errors = method.init(), deque[UnreadableImage]()
    for good in even_batches(_readable(dataset, todo, errors), batch_size):
        while errors:
            yield errors.popleft()
        if len(good) == 1 < batch_size and not method.answers_alone:
            yield UnreadableImage(good[0].id, ALONE)
            continue
        if predictor.kind.dense and len({sample.image.shape for sample in good}) > 1:
            raise UsageError("maps of images of different sizes do not stack: leave --batch-size at 1")
        images = batch_of([sample.image for sample in good], device)
        with torch.no_grad():
            before = call(predictor, {}, images)
        begin = time.perf_counter()
        if not online:
            state = method.init()
        prediction, state = method.step(state, Inputs(images, [sample.id for sample in good]), seed)
        seconds = (time.perf_counter() - begin) / len(good)
        batch = len(good) if method.needs_batch else None
        for row, sample in enumerate(good):
            yield Answer(sample, before[row], prediction, row, seconds, batch)
    yield from errors


def _readable(dataset: Dataset, todo: Sequence[int], errors: deque[UnreadableImage]) -> Iterator[Sample]:
    """The images that can be read, in order; the others go to `errors`."""
    for item in readable(dataset, todo):
        if isinstance(item, UnreadableImage):
            errors.append(item)
        else:
            yield item


def adapt_rows(
    predictor: Predictor, given: Iterator[Answer | UnreadableImage], *, least: float | None = None
) -> Iterator[dict[str, Any]]:
    """Rows with the label and confidence before and after adaptation, and what it cost; unreadable images too.

    least: a confidence below which the answer afterwards is UNSURE.
    """
    names = predictor.class_names
    for answer in given:
        if isinstance(answer, UnreadableImage):
            yield unreadable(answer)
            continue
        before, after = Prediction(answer.before[None]).probabilities[0], answer.prediction.probabilities[answer.row]
        first, last = int(before.argmax()), int(after.argmax())
        yield {
            "id": answer.sample.id,
            "before": names[first],
            "before_confidence": round(float(before[first]), 6),
            "after": names[last] if float(after[last]) >= (least or 0) else UNSURE,
            "after_confidence": round(float(after[last]), 6),
            "changed": first != last,
            **answer.cost,
        }


def classify_rows(
    dataset: Dataset,
    method: Method,
    class_names: tuple[str, ...],
    *,
    seed: int,
    device: torch.device,
    todo: Sequence[int],
    least: float | None = None,
) -> Iterator[dict[str, Any]]:
    """Rows with the ranked labels and the margin of the first over the second, with its standard error.

    least: a confidence below which the label is UNSURE.
    """
    for sample in readable(dataset, todo):
        if isinstance(sample, UnreadableImage):
            yield unreadable(sample)
            continue
        prediction, seconds = _answered(method, sample, seed, device)
        probabilities = prediction.probabilities[0]
        order = probabilities.argsort(descending=True, stable=True).tolist()
        notes = prediction.notes[0]
        yield {
            "id": sample.id,
            "label": class_names[order[0]] if float(probabilities[order[0]]) >= (least or 0) else UNSURE,
            "confidence": round(float(probabilities[order[0]]), 6),
            "ranked": ", ".join(f"{class_names[k]} {float(probabilities[k]):.3f}" for k in order[:5]),
            "margin": notes.get("margin"),
            "margin_standard_error": notes.get("margin_standard_error"),
            "nfe_forward": prediction.costs[0].nfe_forward,
            "seconds": seconds,
            "error": None,
        }


def _answered(method: Method, sample: Sample, seed: int, device: torch.device) -> tuple[Prediction, float]:
    """What a method says of one image, for itself, and the seconds that it took."""
    begin = time.perf_counter()
    inputs = Inputs(sample.image[None].to(device), [sample.id])
    prediction, _ = method.step(method.init(), inputs, seed)
    return prediction, round(time.perf_counter() - begin, 4)


def known_rows(
    dataset: Dataset,
    method: Method,
    right: Sequence[Sequence[int]],
    *,
    seed: int,
    device: torch.device,
    todo: Sequence[int],
) -> Iterator[dict[str, Any]]:
    """Rows with the true class and the logarithms of the probabilities, of images whose answer is known.

    right: for each class of the data set the answers that are right; the one that was given, or else the first, is the
    true class.
    """
    for sample in readable(dataset, todo):
        if isinstance(sample, UnreadableImage):
            yield unreadable(sample)
            continue
        if sample.target < 0 or not (accepted := right[sample.target]):
            continue
        prediction, seconds = _answered(method, sample, seed, device)
        output = prediction.output[0]
        yield {
            "id": sample.id,
            "target": int(output.argmax()) if int(output.argmax()) in accepted else accepted[0],
            "log_probabilities": output.double().log_softmax(0).tolist(),
            "seconds": seconds,
            "error": None,
        }


def unreadable(error: UnreadableImage) -> dict[str, Any]:
    """The row of an image that was skipped."""
    return {"id": error.name, "error": error.reason}
