"""The before/after gallery: which samples to show, and what each entry thought of them."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from diffcern.errors import DiffcernError
from diffcern.report.columns import AGAIN, probabilities, read_table
from diffcern.report.run import Run
from diffcern.report.summary import CLEAN, SOURCE
from diffcern.report.wording import Row, best_entry

FIXED, BROKEN, WRONG = "fixed", "broken", "wrong"
EACH = 4  # samples of each kind
TOP = 5  # classes shown
PIXELATED = 64  # images up to this size are enlarged without smoothing
LARGEST = 224  # larger images are reduced to this, to keep the page small
HEAVY = 48_000  # bytes above which an image is stored as JPEG

EXAMPLES = pa.schema(
    [
        ("shift", pa.string()),
        ("severity", pa.int64()),
        ("id", pa.string()),
        ("image", pa.binary()),
        ("clean", pa.binary()),
    ]
)


@dataclass(frozen=True)
class Bar:
    """One entry's probability of one class."""

    entry: str
    probability: float


@dataclass(frozen=True)
class Sample:
    """One shifted image (a data URI), the answers to it, and every entry's probability of the top classes."""

    kind: str
    shift: str
    severity: int
    id: str
    image: str
    clean: str | None
    pixelated: bool
    truth: str
    answers: list[tuple[str, str, bool]]  # entry, class, right
    bars: list[tuple[str, bool, list[Bar]]]  # class, whether it is the true one, bars


@dataclass(frozen=True)
class Gallery:
    """Samples of each kind, and how often each kind happens in the whole run (`totals`)."""

    focus: str
    samples: list[Sample]
    totals: dict[str, int]
    answers: int


def build_gallery(run: Run, focus: str | None) -> Gallery | None:
    """Samples that `focus` fixed, broke or left wrong; None without examples, targets or a comparison."""
    if focus is None:
        return None
    kinds = _kinds(run, focus)
    chosen = _choose(_stored(run), kinds)
    if not chosen:
        return None
    known = probabilities(run.path, {(row["shift"], row["severity"], row["id"]) for row, _ in chosen})
    found = [kind for kind in kinds.values() if kind]
    return Gallery(
        focus=focus,
        samples=[_sample(run, row, kind, known) for row, kind in chosen],
        totals={kind: found.count(kind) for kind in (FIXED, BROKEN, WRONG)},
        answers=len(found),
    )


def shown(run: Run, focus: str | None) -> list[tuple[dict[str, Any], str]]:
    """The rows of the samples (see `EXAMPLES`) that `build_gallery` shows, and what became of each, the kinds in
    turn."""
    chosen = [] if focus is None else _choose(_stored(run), _kinds(run, focus))
    kinds = [[pair for pair in chosen if pair[1] == kind] for kind in (FIXED, BROKEN, WRONG)]
    return [pair for turn in zip_longest(*kinds) for pair in turn if pair]


def focus_of(summary: Sequence[Row]) -> str | None:
    """The entry whose answers are shown beside source's: the best, of those for single images where there is one."""
    return best_entry(summary, single=True) or best_entry(summary)


def _stored(run: Run) -> list[dict[str, Any]]:
    """Examples of shifted images; none where the run keeps none, or where source did not answer."""
    file = run.path / "examples.parquet"
    if not file.is_file() or not any(entry.name == SOURCE for entry in run.entries):
        return []
    return [row for row in read_table(file, EXAMPLES).to_pylist() if row["shift"] != CLEAN]


def _kinds(run: Run, focus: str) -> dict[tuple[str, int, str], str]:
    """What became of each shifted image that source and focus answered; "right" where neither failed."""
    kinds = {}
    for shift, severity in run.conditions:
        pair = [run.cells.get((entry, shift, severity)) for entry in (SOURCE, focus)]
        if shift == CLEAN or pair[0] is None or pair[1] is None:
            continue
        before, after = (
            {i: p == t for i, p, t in zip(c.ids, c.prediction, c.target, strict=True) if t >= 0} for c in pair if c
        )
        for i in before.keys() & after.keys():
            kind = ("right" if after[i] else BROKEN) if before[i] else (FIXED if after[i] else WRONG)
            kinds[shift, severity, i] = kind
    return kinds


def _choose(rows: list[dict[str, Any]], kinds: dict[tuple[str, int, str], str]) -> list[tuple[dict[str, Any], str]]:
    """Up to `EACH` rows of each kind, in turn from every shift: the choice is blind to how well they look."""
    chosen = []
    for kind in (FIXED, BROKEN, WRONG):
        by_shift: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            if kinds.get((row["shift"], row["severity"], row["id"])) == kind:
                by_shift.setdefault(row["shift"], []).append(row)
        turns = [row for turn in zip_longest(*by_shift.values()) for row in turn if row is not None]
        # An image already shown under another shift comes last.
        shown: set[str] = set()
        first: list[dict[str, Any]] = []
        again: list[dict[str, Any]] = []
        for row in turns:
            (again if row["id"] in shown else first).append(row)
            shown.add(row["id"])
        chosen += [(row, kind) for row in [*first, *again][:EACH]]
    return chosen


def _sample(run: Run, row: dict[str, Any], kind: str, known: dict[Any, list[float]]) -> Sample:
    condition = (row["shift"], row["severity"])
    entries = [entry.name for entry in run.entries if (entry.name, *condition, row["id"]) in known]
    target, predictions = _answers(run, entries, condition, row["id"])
    table = {entry: np.array(known[(entry, *condition, row["id"])]) for entry in entries}
    sizes = {len(p) for p in table.values()}
    classes: list[int] = []
    if len(sizes) == 1 and 0 not in sizes:
        score = np.max(list(table.values()), axis=0)
        top = np.argsort(-score, kind="stable")[:TOP]
        # The true class is always among those shown, and classes keep their order where there are few.
        classes = sorted({*map(int, top[: TOP - 1 if target not in top else TOP]), target})
        if len(score) > 2 * TOP:
            classes.sort(key=lambda c: -score[c])
    image, small = embed(row["image"])
    return Sample(
        kind=kind,
        shift=row["shift"],
        severity=row["severity"],
        id=row["id"],
        image=image,
        clean=embed(row["clean"])[0] if row["clean"] else None,
        pixelated=small,
        truth=class_name(run, target),
        answers=[(entry, _short(class_name(run, p)), p == target) for entry, p in predictions],
        bars=[
            (_short(class_name(run, c)), c == target, [Bar(entry, float(table[entry][c])) for entry in entries])
            for c in classes
        ],
    )


def _answers(
    run: Run, entries: Iterable[str], condition: tuple[str, int], id_: str
) -> tuple[int, list[tuple[str, int]]]:
    """The target of one sample and each entry's prediction."""
    target, predictions = -1, []
    for entry in entries:
        cell = run.cells[(entry, *condition)]
        i = int(np.searchsorted(cell.ids, id_))
        target = int(cell.target[i])
        predictions.append((entry, int(cell.prediction[i])))
    return target, predictions


def class_name(run: Run, index: int) -> str:
    """The name of a class, its number where it has none."""
    return run.classes[index] if 0 <= index < len(run.classes) else f"class {index}"


def _short(name: str) -> str:
    """The first of the synonyms that ImageNet's class names list."""
    return name.split(",")[0]


def picture(data: bytes) -> Image.Image:
    """One of the pictures that a run folder holds, all of them PNG. Raises DiffcernError for a damaged one."""
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=("PNG",))
        image.load()
    except Exception as error:  # Pillow's parsers raise whatever a damaged header makes them
        raise DiffcernError(
            f"a picture in examples.parquet, truths.parquet or answers/ is damaged ({error}); {AGAIN}"
        ) from error
    return image


def embed(data: bytes) -> tuple[str, bool]:
    """An image as a data URI, and whether it is to be enlarged as pixels; reduced where it would be heavy."""
    data, kind, small = reduced(data)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}", small


def reduced(data: bytes) -> tuple[bytes, str, bool]:
    """A PNG, or where it would be heavy a smaller JPEG: (bytes, "png" or "jpeg", whether it is small enough to be
    enlarged as pixels)."""
    image = picture(data)
    small = max(image.size) <= PIXELATED
    if max(image.size) <= LARGEST and len(data) <= HEAVY:
        return data, "png", small
    image = image.convert("RGB")
    image.thumbnail((LARGEST, LARGEST))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue(), "jpeg", small
