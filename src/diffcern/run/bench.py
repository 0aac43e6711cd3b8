"""A specification with its models and images at hand, and its work cut into units.

Knows nothing of files: `evaluate` writes what `Bench.run` returns.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from diffcern.data import Dataset, Sample, UnreadableImage, check_pixels, subset
from diffcern.data.scenes import Scenes
from diffcern.data.shifts import shift as shifted
from diffcern.devices import device_named, peak_memory_mb
from diffcern.errors import UsageError
from diffcern.fingerprints import digest
from diffcern.kinds import KINDS
from diffcern.methods import checked_options, method_class, needs
from diffcern.methods.base import Method
from diffcern.methods.options import defaults
from diffcern.resizing import Images
from diffcern.rng import generator
from diffcern.run.batch import ALONE, batch_of, even_batches
from diffcern.run.models import load_models
from diffcern.run.protocols import ACROSS, Place, stream
from diffcern.run.spec import Entry, Spec
from diffcern.run.truths import Truths, check_truth, load_images, right_answers
from diffcern.run.units import Done, Item, Unit
from diffcern.types import Inputs, Prediction, Record, Timing

PICTURES_PER_CELL = 6  # images of which masks or depths are kept for the report, with every entry's answer
KEPT_BYTES = 2**29  # of a cell's images in memory, from one entry to the next; further ones are made again
KEPT_TRUTHS = 2**29  # the same of all masks and depths


class Bench:
    """A specification with its models and images at hand.

    Everything random is keyed by (seed, sample id); the order of the images is a seeded shuffle, the same for all
    entries, so that an online entry never meets one class after the other.
    """

    def __init__(self, spec: Spec, device: torch.device, images: Dataset | None = None) -> None:
        """images: `images_of(spec)`, where they are at hand."""
        self.spec = spec
        self.device = device
        self.dataset: Dataset = images_of(spec) if images is None else images
        self.order = order_of(len(self.dataset), spec.seed)
        self.dense = KINDS[spec.models.task].dense  # an answer at every pixel
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
            if loaded := self.method(name).loaded:
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
                "needs_batch": self.method(name).needs_batch or (entry.protocol != "episodic" and entry.batch_size > 1),
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
        return shown_image(self.spec, self.dataset, sample, self.order[position], shift, severity)

    def stream(self, unit: Unit) -> list[Place]:
        """The images of a unit, in the order in which its entry meets them."""
        entry = self.spec.entries[unit.entry]
        cells = self.spec.shifts.cells if entry.protocol in ACROSS else [(unit.shift, unit.severity)]
        targets = [self.dataset.targets[index] for index in self.order]
        return stream(entry.protocol, cells, targets, self.spec.seed, entry.concentration)[unit.start : unit.stop]

    def run(self, unit: Unit) -> Done:
        """The records of a unit, and what else there is to say of it; of some images the masks or depths, as PNG."""
        entry, method = self.spec.entries[unit.entry], self.method(unit.entry)
        records: list[Record] = []
        timings: list[Timing] = []
        skipped: list[dict[str, Any]] = []
        pictures: list[dict[str, Any]] = []
        state = method.init()
        for batch in even_batches(self._readable(unit, skipped), entry.batch_size):
            if len(batch) == 1 < entry.batch_size and not method.answers_alone:
                skipped.append({**self._key(unit, batch[0]), "reason": ALONE})
                continue
            ids = [self.dataset.ids[self.order[item.position]] for item in batch]
            images = self._batch([item.image for item in batch])
            begin = time.perf_counter()
            if entry.protocol == "episodic":
                state = method.init()
            prediction, state = method.step(state, Inputs(images, ids), self.spec.seed)
            seconds, memory = (time.perf_counter() - begin) / len(ids), peak_memory_mb(self.device)
            records += self._records(unit, batch, prediction)
            timings += [Timing(**self._key(unit, item), seconds=seconds, peak_memory_mb=memory) for item in batch]
            for row, item in enumerate(batch):
                if self.dense and item.position < PICTURES_PER_CELL:
                    picture = self.truths.picture(self.order[item.position], prediction.output[row])
                    pictures += [{**self._key(unit, item), "png": picture}] if picture else []
        return Done(records, timings, skipped, pictures)

    def _readable(self, unit: Unit, skipped: list[dict[str, Any]]) -> Iterator[Item]:
        """The images of the unit that can be used, with their truths; others become rows of `skipped`."""
        for place, (position, shift, severity) in enumerate(self.stream(unit), unit.start):
            item = Item(position, shift, severity, place, torch.empty(0))
            try:
                if self.dense:
                    self.truths.sample(self.order[position])
                yield replace(item, image=self.image(position, shift, severity))
            except UnreadableImage as error:
                skipped.append({**self._key(unit, item), "reason": error.reason})

    def _key(self, unit: Unit, item: Item) -> dict[str, Any]:
        """What names a row of a file of the run."""
        id = self.dataset.ids[self.order[item.position]]
        return {"entry": unit.entry, "shift": item.shift, "severity": item.severity, "id": id}

    def _batch(self, images: Sequence[Tensor]) -> Images:
        if self.dense and len({image.shape for image in images}) > 1:
            raise UsageError(
                f"{self.spec.data.dataset} has images of different sizes, and answers of {self.task.name} are as large "
                "as they are: set batch_size = 1"
            )
        return batch_of(images, self.device)

    def _records(self, unit: Unit, batch: Sequence[Item], prediction: Prediction) -> Iterator[Record]:
        entry, needs_batch = self.spec.entries[unit.entry], self.method(unit.entry).needs_batch
        indices = [self.order[item.position] for item in batch]
        judged = self.truths.judge(indices, prediction.output, None if self.dense else prediction.probabilities)
        for row, item in enumerate(batch):
            notes = dict(prediction.notes[row]) if prediction.notes else {}
            if entry.protocol != "episodic":
                notes["order"] = item.place
            if needs_batch and len(batch) != entry.batch_size:  # other statistics than were asked for
                notes["batch"] = len(batch)
            yield Record(
                **self._key(unit, item),
                method=entry.method,
                dataset=self.spec.data.dataset,
                index=indices[row],
                target=judged[row].target,
                prediction=judged[row].prediction,
                probabilities=list(judged[row].probabilities),
                nfe_forward=prediction.costs[row].nfe_forward,
                nfe_backward=prediction.costs[row].nfe_backward,
                loss_trace=list(prediction.trace[row]) if prediction.trace else [],
                notes=notes,
                statistics=list(judged[row].statistics),
            )


def order_of(count: int, seed: int) -> list[int]:
    """Of a bench's images: shuffled, the same for all entries."""
    order: list[int] = torch.randperm(count, generator=generator(seed, "order")).tolist()
    return order


def images_of(spec: Spec) -> Dataset:
    """Those that a bench is about, before they are shuffled."""
    images = load_images(spec.data.dataset, spec.models.task, spec.data.class_names)
    return subset(images, spec.data.count, spec.seed, spec.data.skip)


def shown_image(spec: Spec, images: Dataset, sample: Sample, index: int, shift: str, severity: int) -> Tensor:
    """The image of `images[index]`, which is that sample, as the entries of a bench meet it."""
    if shift in getattr(images, "renditions", ()):
        rendition: Sample = images.rendition(index, shift, severity)  # type: ignore[attr-defined]
        return rendition.image
    whole = KINDS[spec.models.task].dense or spec.shifts.whole  # a truth at every pixel belongs to every pixel
    return shifted(sample.image, shift, severity, spec.seed, sample.id, whole=whole)


def _resolved(entry: Entry) -> dict[str, Any]:
    """The options of an entry as its method takes them: those given, else the constructor's defaults; but for those
    that were added since, where they change nothing."""
    cls = method_class(entry.method)
    resolved = {**defaults(cls), **checked_options(entry.method, entry.options)}
    return {name: value for name, value in resolved.items() if name not in cls.added or value != cls.added[name]}


def _check_renditions(dataset: Dataset, spec: Spec) -> None:
    """Raises UsageError for a rendition of other data."""
    for shift in dict(spec.shifts.cells):
        if shift in Scenes.renditions and shift not in getattr(dataset, "renditions", ()):
            raise UsageError(
                f"{shift} draws embedded:scenes otherwise, and cannot shift {spec.data.dataset}: choose other shifts"
            )


@dataclass(frozen=True)
class Runner:
    """What does a bench's pieces of work, each of which says how (`do`), with models that it loads where it is.

    device: by name where it is another machine's. images: those that are at hand here; elsewhere they are read again.
    """

    spec: Spec
    device: torch.device | str
    images: Dataset | None = None

    def __call__(self) -> Callable[[Any], Any]:
        device = device_named(self.device) if isinstance(self.device, str) else self.device
        bench = Bench(self.spec, device, self.images)
        return lambda piece: piece.do(bench)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "images": None}
