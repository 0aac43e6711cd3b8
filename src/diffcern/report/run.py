"""A run folder in memory: the values that every table and plot of a report is made of; `records.py` reads them."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffcern.kinds import KINDS, Kind

# The order papers print (noise, blur, weather, digital; the extra four last); anything else follows by name.
SHIFT_ORDER = [
    "clean",
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
    "speckle_noise",
    "gaussian_blur",
    "spatter",
    "saturate",
]


@dataclass(frozen=True)
class ReportedEntry:
    """One configured method: a row of every table."""

    name: str
    method: str
    protocol: str | None = None
    batch_size: int | None = None
    needs_batch: bool = False
    description: str = ""


@dataclass(frozen=True)
class Cell:
    """What one entry answered on one shift and severity; arrays of one length, ordered by id.

    confidence is the largest class probability (NaN where none was recorded); statistics is `[N, S]`, what the
    task's metrics sum up (of classes: right, labelled), NaN where no truth is known; traces is `[N, steps]`, NaN
    past the end of a trace; seconds and memory hold only the samples that were timed; skipped is the reason
    by id of the images that could not be read.
    """

    ids: NDArray[Any]
    target: NDArray[Any]
    prediction: NDArray[Any]
    confidence: NDArray[Any]
    statistics: NDArray[Any]
    nfe_forward: NDArray[Any]
    nfe_backward: NDArray[Any]
    traces: NDArray[Any]
    seconds: NDArray[Any]
    memory: NDArray[Any]
    skipped: dict[str, str]

    @property
    def labelled(self) -> NDArray[Any]:
        """Whether each answer's truth is known."""
        return np.isfinite(self.statistics).all(axis=1) & (self.statistics.shape[1] > 0)


@dataclass(frozen=True)
class Run:
    """A run folder in memory: `cells[entry, shift, severity]`, entries in the order of the specification.

    task: a key of `kinds.KINDS`. images: how many the plan has for each cell; None where the folder does not say.
    """

    path: Path
    dataset: str
    task: str
    images: int | None
    entries: list[ReportedEntry]
    classes: list[str]
    spec: str
    cells: dict[tuple[str, str, int], Cell]

    @property
    def title(self) -> str:
        """The specification's name, else the data set's."""
        try:
            return str(tomllib.loads(self.spec).get("name", self.dataset))
        except tomllib.TOMLDecodeError:  # a folder that something else made
            return self.dataset

    @property
    def kind(self) -> Kind:
        """The row of `kinds.KINDS` of its task."""
        return KINDS[self.task]

    @property
    def conditions(self) -> list[tuple[str, int]]:
        """Every planned (shift, severity), clean first."""
        return sorted({key[1:] for key in self.cells}, key=lambda c: (shift_rank(c[0]), c[1]))

    def shifted(self, entry: str) -> list[Cell]:
        """The cells of an entry under any shift, the clean ones where nothing is shifted."""
        cells = {key: cell for key, cell in self.cells.items() if key[0] == entry}
        return [cell for key, cell in cells.items() if key[1] != "clean"] or list(cells.values())


def shift_rank(shift: str) -> tuple[int, str]:
    """Sort key of a shift's name."""
    return (SHIFT_ORDER.index(shift) if shift in SHIFT_ORDER else len(SHIFT_ORDER), shift)
