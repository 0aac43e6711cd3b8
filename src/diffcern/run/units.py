"""The work of a bench cut into units: one file of records each, whoever makes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from diffcern.methods import reads_batch
from diffcern.run.protocols import ACROSS
from diffcern.run.spec import Entry, Spec
from diffcern.types import Record, Timing

UNIT = 20  # images per unit of work where images are independent


@dataclass(frozen=True)
class Unit:
    """One file of records: an entry on some images of one shift, from `start` to before `stop` of their stream.

    An entry that carries its state takes a stream as a whole; where that is of all shifts, `shift` is its protocol.
    """

    entry: str
    shift: str
    severity: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        return f"{self.entry}--{self.shift}-{self.severity}--{self.start:06d}"

    def do(self, bench: Any) -> Done:
        """By a `Bench`."""
        done: Done = bench.run(self)
        return done

    @property
    def images(self) -> list[Unit]:
        """One for each image."""
        return [replace(self, start=start, stop=start + 1) for start in range(self.start, self.stop)]

    @property
    def title(self) -> str:
        return f"{self.entry} on {self.shift}" + (f" {self.severity}" if self.severity else "")


@dataclass(frozen=True)
class Item:
    """An image of a unit. position: in the bench's order; place: in the stream."""

    position: int
    shift: str
    severity: int
    place: int
    image: Tensor


@dataclass(frozen=True)
class Done:
    """What became of a unit. skipped, pictures: rows of the schemas in `run/store.py`."""

    records: Sequence[Record]
    timings: Sequence[Timing]
    skipped: Sequence[Mapping[str, Any]] = ()
    pictures: Sequence[Mapping[str, Any]] = ()

    def __add__(self, other: Done) -> Done:
        return Done(*([*own, *more] for own, more in zip(vars(self).values(), vars(other).values(), strict=True)))


def units(spec: Spec, count: int) -> list[Unit]:
    """The whole work on `count` images, in the order it is done."""
    result = []
    for shift, severity in spec.shifts.cells:
        for name, entry in spec.entries.items():
            if entry.protocol == "episodic":
                result += [Unit(name, shift, severity, start, stop) for start, stop in _spans(entry, count)]
            elif entry.protocol not in ACROSS:
                result.append(Unit(name, shift, severity, 0, count))
    across = {name: entry.protocol for name, entry in spec.entries.items() if entry.protocol in ACROSS}
    return result + [Unit(name, way, 0, 0, count * len(spec.shifts.cells)) for name, way in across.items()]


def independent(entry: Entry) -> bool:
    """Whether an image's answer is the same in any company."""
    return entry.protocol == "episodic" and not reads_batch(entry.method, entry.options)


def _spans(entry: Entry, count: int) -> list[tuple[int, int]]:
    """The units of an episodic entry: whole batches. A rest that would not fill one goes to the unit before it, whose
    last batches share it, where the method reads its batch."""
    size = max(entry.batch_size, UNIT - UNIT % entry.batch_size)
    starts = list(range(0, count, size))
    if reads_batch(entry.method, entry.options) and len(starts) > 1 and count - starts[-1] < entry.batch_size:
        del starts[-1]
    return list(zip(starts, [*starts[1:], count], strict=True))
