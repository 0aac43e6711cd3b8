"""What a temperature makes of a run's confidences: each answer's is fitted on other images (`calibration.py`)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffcern.calibration import held_out
from diffcern.errors import DiffcernError
from diffcern.report.run import Run
from diffcern.run.store import answers_of

MOST = 3_000_000  # probabilities of an entry; a report is to be had at once
Answers = tuple[NDArray[Any], NDArray[Any]]  # confidence, and whether it was right


def tempered(run: Run) -> dict[str, Answers]:
    """By entry, for its answers to shifted images (clean ones where nothing is shifted); entries that no temperature
    can be fitted to are left out, and those of more than `MOST` probabilities."""
    found = {}
    for entry in run.entries:
        answered = sum(int((cell.target >= 0).sum()) for cell in run.shifted(entry.name))
        if run.kind.dense or answered * len(run.classes) > MOST:
            continue
        rows = [row for row in answers_of(run.path, entry.name) if row["target"] is not None and row["target"] >= 0]
        rows = [row for row in rows if row["shift"] != "clean"] or rows
        if not rows:
            continue
        logits = np.array([row["log_probabilities"] for row in rows])
        targets = np.array([row["target"] for row in rows])
        try:
            p = held_out(logits, targets, [row["id"] for row in rows])
        except DiffcernError:  # too few, of one class, or all right
            continue
        found[entry.name] = (p.max(1), (p.argmax(1) == targets).astype(float))
    return found
