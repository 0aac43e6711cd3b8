"""A specification with its models and images at hand, and its work cut into units.

Knows nothing of files: `evaluate` writes what `Bench.run` returns.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffcern.data import Dataset, Sample, UnreadableImage, check_pixels, subset
from diffcern.data.scenes import Scenes
from diffcern.data.shifts import shift as shifted
from diffcern.devices import peak_memory_mb
from diffcern.errors import UsageError
from diffcern.fingerprints import digest
from diffcern.methods import MODELS, checked_options, method_class, needs
from diffcern.methods.base import Method
from diffcern.resizing import Images
from diffcern.rng import generator
from diffcern.run.batch import batch_of
from diffcern.run.models import load_models
from diffcern.run.spec import Entry, Spec
from diffcern.run.truths import Truths, check_truth, load_images, right_answers
from diffcern.types import Inputs, Prediction, Record, Timing

PICTURES_PER_CELL = 6  # images of which masks or depths are kept for the report, with every entry's answer
UNIT = 20  # images per unit of work where images are independent
KEPT_BYTES = 2**29  # of a cell's images in memory, from one entry to the next; further ones are made again
KEPT_TRUTHS = 2**29  # the same of all masks and depths


@dataclass(frozen=True)
class Unit:
    """One file of records: an entry on some images of one shift. Online entries take a shift as a whole."""

    entry: str
    shift: str
    severity: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        return f"{self.entry}--{self.shift}-{self.severity}--{self.start:06d}"

    @property
    def title(self) -> str:
        return f"{self.entry} on {self.shift}" + (f" {self.severity}" if self.severity else "")


def units(spec: Spec, count: int) -> list[Unit]:
    """The whole work, in the order it is done."""
    result = []
    for shift, severity in spec.shifts.cells:
        for name, entry in spec.entries.items():
            size = count if entry.protocol == "online" else max(entry.batch_size, UNIT - UNIT % entry.batch_size)
            result += [Unit(name, shift, severity, start, min(start + size, count)) for start in range(0, count, size)]
    return result


class Bench:
    """A specification with its models and images at hand.

    Everything random is keyed by (seed, sample id); the order of the images is a seeded shuffle, the same for all
    entries, so that an online entry never meets one class after the other.
    """

    def __init__(self, spec: Spec, device: torch.device) -> None:
        self.spec = spec
        self.device = device
        images = load_images(spec.data.dataset, spec.models.task, spec.data.class_names)
        self.dataset: Dataset = subset(images, spec.data.count, spec.seed, spec.data.skip)
        order = torch.randperm(len(self.dataset), generator=generator(spec.seed, "order")).tolist()
        self.order: list[int] = order
        self.dense = spec.models.task != "classification"  # an answer at every pixel
        _check_renditions(self.dataset, spec)
        uses_prior = any(needs(entry.method, "prior") for entry in spec.entries.values())
        if uses_prior and spec.models.prior is None:
            raise UsageError("an entry needs a prior: add prior = ... to [models]")
        if self.dense:
            check_truth(self.dataset, spec.data.dataset, spec.models.task, self.order)
        classes = right_answers(self.dataset, spec.data.dataset, spec.models.task, spec.models.class_map)
        self.models = load_models(spec.models, device, list(dict.fromkeys(name for names in classes for name in names)))
        if self.models.predictor is None:
            raise UsageError("a bench needs a predictor: add predictor = ... to [models]")
        self.predictor, self.task = self.models.predictor, self.models.task
        if self.dense and self.task.class_names != tuple(name for names in classes for name in names):
            raise UsageError(f"a bench of {self.task.name} tells apart what the masks do: leave labels out of [models]")
        self.truths = Truths(self.dataset, self.task, classes, KEPT_TRUTHS)
        self.skipped: dict[str, str] = {}  # images or truths that cannot be used: id -> reason
        self._methods: dict[str, Method] = {}
        self._cell: tuple[str, int] | None = None
        self._images: dict[int, Tensor] = {}
        self._room = KEPT_BYTES

    def method(self, name: str) -> Method:
        """The method of an entry, built once."""
        if name not in self._methods:
            entry = self.spec.entries[name]
            self._methods[name] = self.models.method(entry.method, entry.options)
        return self._methods[name]

    def fingerprint(self) -> dict[str, str]:
        """What the records depend on and the specification only names: "predictor", "prior" (where there is one),
        "images" (their ids in order) and "options" (given ones over the constructors' defaults, and the fingerprint of
        what a method loaded itself), 16 hex digits each."""
        ids = [self.dataset.ids[index] for index in self.order]
        options = {name: _resolved(entry) for name, entry in self.spec.entries.items()}
        for name, own in options.items():
            if loaded := getattr(self.method(name), "loaded", None):
                own["loaded"] = loaded
        return {**self.models.fingerprints(), "images": digest(ids), "options": digest(options)}

    def entry_rows(self) -> list[dict[str, object]]:
        """What the report needs to know of each entry; builds every method, so that a bad option shows early."""
        for name in self.spec.entries:
            self.method(name).init()
        return [
            {
                "entry": name,
                "method": entry.method,
                "protocol": entry.protocol,
                "batch_size": entry.batch_size,
                "needs_batch": self.method(name).needs_batch or (entry.protocol == "online" and entry.batch_size > 1),
                "description": entry.description,
            }
            for name, entry in self.spec.entries.items()
        ]

    def image(self, position: int, shift: str, severity: int) -> Tensor:
        """The shifted image at a position of the order.

        The first images of the current shift are kept: every entry goes through them from the start, so that keeping
        the latest would keep none that is asked for again.
        """
        if self._cell != (shift, severity):
            self._cell, self._images, self._room = (shift, severity), {}, KEPT_BYTES
        if position in self._images:
            return self._images[position]
        sample = self.dataset[self.order[position]]
        check_pixels(sample.image, sample.id)
        image = self.shifted_image(sample, position, shift, severity)
        if image.nbytes <= self._room:
            self._images[position] = image
            self._room -= image.nbytes
        return image

    def shifted_image(self, sample: Sample, position: int, shift: str, severity: int) -> Tensor:
        """The image of the sample at that position under a shift, or the same scene drawn otherwise."""
        if shift in getattr(self.dataset, "renditions", ()):
            rendition: Sample = self.dataset.rendition(self.order[position], shift, severity)  # type: ignore[attr-defined]
            return rendition.image
        whole = self.dense or self.spec.shifts.whole  # a truth at every pixel belongs to every pixel
        return shifted(sample.image, shift, severity, self.spec.seed, sample.id, whole=whole)

    def run(self, unit: Unit) -> tuple[list[Record], list[Timing], dict[str, bytes]]:
        """The records of a unit; of its first images the masks or depths that were answered, as PNG by id."""
        entry = self.spec.entries[unit.entry]
        method = self.method(unit.entry)
        records: list[Record] = []
        timings: list[Timing] = []
        pictures: dict[str, bytes] = {}
        state = method.init()
        for start in range(unit.start, unit.stop, entry.batch_size):
            positions: list[int] = list(range(start, min(start + entry.batch_size, unit.stop)))
            positions, images = self._readable(positions, unit)
            if not positions:
                continue
            ids = [self.dataset.ids[self.order[p]] for p in positions]
            begin = time.perf_counter()
            if entry.protocol == "episodic":
                state = method.init()
            prediction, state = method.step(state, Inputs(images, ids), self.spec.seed)
            seconds = (time.perf_counter() - begin) / len(ids)
            records += self._records(unit, entry, positions, ids, prediction)
            timings += [
                Timing(unit.entry, unit.shift, unit.severity, id, seconds, peak_memory_mb(self.device)) for id in ids
            ]
            for row, position in enumerate(positions):
                if self.dense and position < PICTURES_PER_CELL:
                    picture = self.truths.picture(self.order[position], prediction.output[row])
                    pictures |= {ids[row]: picture} if picture else {}
        return records, timings, pictures

    def _readable(self, positions: list[int], unit: Unit) -> tuple[list[int], Images]:
        """The positions whose images and truths can be used, and those images as a batch; others go to `skipped`."""
        images, kept = [], []
        for position in positions:
            try:
                if self.dense:
                    self.truths.sample(self.order[position])
                images.append(self.image(position, unit.shift, unit.severity))
                kept.append(position)
            except UnreadableImage as error:
                self.skipped[self.dataset.ids[self.order[position]]] = error.reason
        if self.dense and len({image.shape for image in images}) > 1:
            raise UsageError(
                f"{self.spec.data.dataset} has images of different sizes, and answers of {self.task.name} are as large "
                "as they are: set batch_size = 1"
            )
        return kept, batch_of(images, self.device) if images else []

    def _records(
        self, unit: Unit, entry: Entry, positions: list[int], ids: list[str], prediction: Prediction
    ) -> Iterator[Record]:
        indices = [self.order[position] for position in positions]
        judged = self.truths.judge(indices, prediction.output, None if self.dense else prediction.probabilities)
        for row, (index, id) in enumerate(zip(indices, ids, strict=True)):
            yield Record(
                entry=unit.entry,
                method=entry.method,
                dataset=self.spec.data.dataset,
                shift=unit.shift,
                severity=unit.severity,
                id=id,
                index=index,
                target=judged[row].target,
                prediction=judged[row].prediction,
                probabilities=list(judged[row].probabilities),
                nfe_forward=prediction.costs[row].nfe_forward,
                nfe_backward=prediction.costs[row].nfe_backward,
                loss_trace=list(prediction.trace[row]) if prediction.trace else [],
                notes=dict(prediction.notes[row]) if prediction.notes else {},
                statistics=list(judged[row].statistics),
            )


def _resolved(entry: Entry) -> dict[str, Any]:
    """The options of an entry as its method takes them: those given, else the constructor's defaults."""
    parameters = inspect.signature(method_class(entry.method)).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items() if name not in MODELS}
    return {**defaults, **checked_options(entry.method, entry.options)}


def _check_renditions(dataset: Dataset, spec: Spec) -> None:
    """Raises UsageError for a rendition of other data."""
    for shift in dict(spec.shifts.cells):
        if shift in Scenes.renditions and shift not in getattr(dataset, "renditions", ()):
            raise UsageError(f"{shift} draws embedded:scenes otherwise, and cannot shift {spec.data.dataset}")
