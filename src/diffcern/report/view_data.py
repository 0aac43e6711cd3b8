"""The data of a view, as scripts that a page loads one by one: every image's outcomes, and by piece all that is known.

A page that is opened from a disk may not read files, but may load scripts; each calls `diffcernData(name, value)`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from diffcern.errors import DiffcernError
from diffcern.report.columns import AGAIN, KEY, RECORDS, TIMINGS, by_cell, parquet_files
from diffcern.report.notes import sentences
from diffcern.report.outcomes import MISSING, Outcomes, choices, names_of, values_of
from diffcern.report.run import Run
from diffcern.report.view_pictures import Pictures
from diffcern.report.wording import described

INDEXED = 10_000  # images of a piece of the index
DETAILED = 1_000  # records of a piece of details, about
DRAWN = 100  # points of a trace
NOTES = pa.schema([*(RECORDS.field(name) for name in KEY), ("notes", pa.string())])


def write_data(run: Run, outcomes: Outcomes, pictures: Pictures, folder: Path) -> None:
    """run.js (names), index-N.js (ids, truths and outcomes) and details-N.js (records)."""
    width, count = outcomes.letters.shape[1], len(outcomes.ids)
    each = max(1, DETAILED // width)
    names = {
        "title": run.title,
        "images": count,
        "entries": [entry.name for entry in run.entries],
        "conditions": run.conditions,
        "classes": run.classes,
        "dense": run.kind.dense,
        "metric": described(run.kind.metrics[0]),
        "missing": MISSING,
        "outcomes": names_of(run),
        "choices": dict(choices(run, outcomes.letters)),
        "indexed": INDEXED,
        "detailed": each,
        "colours": pictures.colours,
    }
    _write(folder, "run", names)
    for start in range(0, count, INDEXED):
        part = slice(start, start + INDEXED)
        value = {
            "ids": outcomes.ids[part].tolist(),
            "truths": outcomes.truths[part].tolist(),
            "outcomes": "".join(outcomes.letters[part].ravel().tolist()),
        }
        _write(folder, f"index-{start // INDEXED}", value)
    for piece, images in enumerate(_details(run, outcomes, pictures, each)):
        _write(folder, f"details-{piece}", images)


def _write(folder: Path, name: str, value: Any) -> None:
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)  # ASCII: the same in any encoding
    (folder / f"{name}.js").write_text(f"diffcernData({json.dumps(name)},{text});\n", "ascii")


def _details(run: Run, outcomes: Outcomes, pictures: Pictures, each: int) -> Iterator[list[dict[str, Any]]]:
    """Pieces of `each` images: of each its records (condition, entry, answer, ...), skips and names of pictures."""
    seconds, notes = by_cell(run.path / "timings", TIMINGS), _notes(run.path / "records")
    skips = _skips(run, outcomes)
    columns = []
    for c, condition in enumerate(run.conditions):
        for e, entry in enumerate(run.entries):
            key = (entry.name, *condition)
            if len(run.cells[key].ids):
                columns.append((outcomes.places[key], c, e, _records(run, key, seconds.get(key), notes.get(key))))
    for start in range(0, len(outcomes.ids), each):
        stop = min(start + each, len(outcomes.ids))
        images = [_image(pictures, n, skips.get(n, [])) for n in range(start, stop)]
        for places, c, e, records in columns:
            low, high = np.searchsorted(places, [start, stop]).tolist()
            for n, record in zip(places[low:high].tolist(), records(low, high), strict=True):
                images[n - start]["records"].append([c, e, *record])
        yield images


def _image(pictures: Pictures, n: int, skipped: list[Any]) -> dict[str, Any]:
    """What there is of an image beside its records; what is empty is left out."""
    kinds = ("shown", "maps", "clean", "truths", "scales")
    found = {"skipped": skipped, **{kind: getattr(pictures, kind).get(n) for kind in kinds}}
    return {"records": [], **{name: value for name, value in found.items() if value}}


def _skips(run: Run, outcomes: Outcomes) -> dict[int, list[tuple[int, int, str]]]:
    """(condition, entry, reason) by image."""
    found: dict[int, list[tuple[int, int, str]]] = {}
    for c, condition in enumerate(run.conditions):
        for e, entry in enumerate(run.entries):
            for id, reason in run.cells[entry.name, *condition].skipped.items():
                found.setdefault(int(np.searchsorted(outcomes.ids, id)), []).append((c, e, reason))
    return found


def _records(run: Run, key: tuple[str, str, int], timing: pa.Table | None, noted: pa.Table | None) -> Any:
    """Of a cell's answers from one number to another: prediction, probability, evaluations, those that were
    differentiated, seconds, trace, notes and value."""
    cell = run.cells[key]
    values, seconds = values_of(run.kind, cell), np.full(len(cell.ids), np.nan)
    if timing is not None and len(timing):
        ids = timing["id"].to_numpy()
        at = np.minimum(np.searchsorted(ids, cell.ids), len(ids) - 1)
        measured = timing["seconds"].to_numpy().astype(float)
        seconds = np.where(ids[at] == cell.ids, measured[at], np.nan)

    def between(low: int, high: int) -> list[list[Any]]:
        texts = noted["notes"].slice(low, high - low).to_pylist() if noted is not None else [""] * (high - low)
        numbers = (cell.prediction, cell.confidence, cell.nfe_forward, cell.nfe_backward, seconds)
        rows = zip(*(column[low:high].tolist() for column in numbers), strict=True)
        return [
            [
                *map(_short, row),
                _trace(cell.traces[low + i]),
                _sentences(text, run.path),
                _short(float(values[low + i])) if run.kind.dense else None,
            ]
            for i, (row, text) in enumerate(zip(rows, texts, strict=True))
        ]

    return between


def _notes(folder: Path) -> dict[tuple[str, str, int], pa.Table]:
    """Notes by cell; none of a version that wrote none."""
    if not all("notes" in pq.read_schema(file).names for file in parquet_files(folder)):
        return {}
    return by_cell(folder, NOTES)


def _sentences(text: str, path: Path) -> list[str]:
    if text in ("", "{}"):
        return []
    try:
        return sentences({str(name): float(value) for name, value in json.loads(text).items()})
    except (ValueError, TypeError, AttributeError) as error:
        raise DiffcernError(f"notes in {path / 'records'} are no named numbers: a file was changed; {AGAIN}") from error


def _trace(row: NDArray[Any]) -> list[float]:
    """Its finite part, thinned evenly where it is long."""
    known = row[np.isfinite(row)]
    if len(known) > DRAWN:
        known = known[np.linspace(0, len(known) - 1, DRAWN).round().astype(int)]
    return [float(f"{value:.4g}") for value in known.tolist()]


def _short(value: float) -> float | None:
    """Four digits; None of what is unknown."""
    return None if not np.isfinite(value) else value if value == int(value) else float(f"{value:.4g}")
