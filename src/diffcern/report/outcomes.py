"""What became of every image under every entry: one letter each, for filters over a whole run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffcern.kinds import Kind
from diffcern.report.run import Cell, Run
from diffcern.report.summary import SOURCE

RIGHT, WRONG, REPAIRED, SPOILT, ANSWERED, SKIPPED, UNKNOWN, MISSING = "rwfbasu."
NAMES = {RIGHT: "right", WRONG: "wrong", REPAIRED: "repaired", SPOILT: "spoilt"}
NAMES_OF_MAPS = {RIGHT: "as good as source", REPAIRED: "better than source", SPOILT: "worse than source"}
NAMES_OF_OTHERS = {ANSWERED: "answered", SKIPPED: "skipped", UNKNOWN: "truth unknown"}
NEVER = -1  # the truth of an image without a label


@dataclass(frozen=True)
class Outcomes:
    """ids: of all images, sorted. truths: the class of each. letters: `[N, conditions x entries]`, a condition's
    entries together. places: by cell, where its ids are in `ids`."""

    ids: NDArray[Any]
    truths: NDArray[Any]
    letters: NDArray[Any]
    places: dict[tuple[str, str, int], NDArray[Any]]

    @property
    def records(self) -> int:
        return sum(map(len, self.places.values()))


def outcomes_of(run: Run) -> Outcomes:
    """Of a run in memory."""
    found = [*(cell.ids for cell in run.cells.values()), [id for cell in run.cells.values() for id in cell.skipped]]
    ids = np.unique(np.concatenate([np.asarray(part, object) for part in found]))
    letters = np.full((len(ids), len(run.conditions) * len(run.entries)), MISSING)
    truths, places = np.full(len(ids), NEVER), {}
    for c, condition in enumerate(run.conditions):
        source = run.cells.get((SOURCE, *condition))
        for e, entry in enumerate(run.entries):
            cell, column = run.cells[entry.name, *condition], c * len(run.entries) + e
            places[entry.name, *condition] = at = np.searchsorted(ids, cell.ids)
            letters[np.searchsorted(ids, np.array(sorted(cell.skipped), object)), column] = SKIPPED
            letters[at, column] = _letters(run.kind, cell, None if entry.name == SOURCE else source)
            truths[at] = cell.target
    return Outcomes(ids, truths, letters, places)


def values_of(kind: Kind, cell: Cell) -> NDArray[Any]:
    """Of each image alone the task's first metric (of a class: 1 is right, 0 is wrong); NaN where no truth is known."""
    values = np.full(len(cell.ids), np.nan)
    if len(cell.ids) and cell.labelled.any():
        values[cell.labelled] = kind.metrics[0].of(cell.statistics[cell.labelled])
    return values


def names_of(run: Run) -> dict[str, str]:
    """What letters are called."""
    return (NAMES_OF_MAPS if run.kind.dense else NAMES) | NAMES_OF_OTHERS


def choices(run: Run, letters: NDArray[Any]) -> list[tuple[str, str]]:
    """What a filter offers: (name, the letters that it stands for); a repaired image is right too, a spoilt one wrong.
    Only what happens in the run."""
    there = "".join(np.unique(letters).tolist())
    groups: Sequence[tuple[str, str]] = [(name, letter) for letter, name in names_of(run).items()]
    if not run.kind.dense:
        groups = [(name, {RIGHT: RIGHT + REPAIRED, WRONG: WRONG + SPOILT}.get(of, of)) for name, of in groups]
    return [(name, of) for name, of in groups if set(of) & set(there)]


def _letters(kind: Kind, cell: Cell, source: Cell | None) -> NDArray[Any]:
    after, before = values_of(kind, cell), np.full(len(cell.ids), np.nan)
    if source is not None and len(source.ids) and len(cell.ids):
        at = np.minimum(np.searchsorted(source.ids, cell.ids), len(source.ids) - 1)
        before = np.where(source.ids[at] == cell.ids, values_of(kind, source)[at], np.nan)
    known = np.where(np.isnan(before), ANSWERED, RIGHT) if kind.dense else np.where(after > 0, RIGHT, WRONG)
    found = np.where(after > before, REPAIRED, np.where(after < before, SPOILT, known))
    return np.where(np.isnan(after), UNKNOWN, found)
