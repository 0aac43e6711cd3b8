"""Before and after at every pixel: masks and depths that entries answered, beside the image and the truth."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from diffcern.errors import DiffcernError
from diffcern.report.columns import AGAIN, KEY, RECORDS, by_cell, read_table
from diffcern.report.gallery import EXAMPLES, LARGEST, PIXELATED, class_name, embed, picture
from diffcern.report.run import Run

EACH = 2  # images of each shift
NAMED = 24  # classes in the legend
COLOURS = "magma_r"  # of depths: light is near

PICTURES = pa.schema([*(RECORDS.field(name) for name in KEY), ("png", pa.binary())])
TRUTH_PICTURES = pa.schema([RECORDS.field("id"), ("png", pa.binary())])


@dataclass(frozen=True)
class Picture:
    """A data URI, whether it is enlarged as pixels, and of an answer the image's own first metric (NaN: unknown)."""

    uri: str
    pixelated: bool
    value: float = np.nan


@dataclass(frozen=True)
class Row:
    """One shifted image with its truth and every entry's answer; scale: of depths, in words."""

    shift: str
    severity: int
    id: str
    image: Picture
    truth: Picture
    answers: dict[str, Picture]
    scale: str = ""


@dataclass(frozen=True)
class MapPictures:
    """Rows in the order of the shifts, and the colours of the classes that the truths show (name, CSS)."""

    rows: list[Row]
    classes: list[tuple[str, str]]


def build_maps(run: Run) -> MapPictures | None:
    """Images of every shift at its highest severity; None where no answers were kept.

    The choice is blind to how well they look: each shift goes on in the list of images where the last one stopped.
    """
    files = [run.path / name for name in ("examples.parquet", "truths.parquet")]
    if not all(file.is_file() for file in files):
        return None
    rows = {(row["shift"], row["severity"], row["id"]): row for row in read_table(files[0], EXAMPLES).to_pylist()}
    truths = {row["id"]: row["png"] for row in read_table(files[1], TRUTH_PICTURES).to_pylist()}
    pictures = {
        (row["shift"], row["severity"], row["id"], row["entry"]): row["png"]
        for table in by_cell(run.path / "answers", PICTURES).values()
        for row in table.to_pylist()
    }
    chosen: list[tuple[str, int, str]] = []
    for shift, severity in dict(run.conditions).items():  # the last severity of a shift is the highest
        there = [id for id in truths if (shift, severity, id) in rows]
        start = len(chosen)
        turned = [there[(start + i) % len(there)] for i in range(min(EACH, len(there)))]
        chosen += [(shift, severity, id) for id in turned]
    found = []
    for key in chosen:
        answers = {entry.name: pictures[*key, entry.name] for entry in run.entries if (*key, entry.name) in pictures}
        if answers:
            found.append(_row(run, key, rows[key]["image"], truths[key[2]], answers))
    if not found:
        return None
    keys, shown = {(row.shift, row.severity, row.id) for row in found}, [truths[id] for id in {row.id for row in found}]
    answered = [png for (*key, _), png in pictures.items() if tuple(key) in keys]
    areas = areas_of([*shown, *answered]) if run.kind.classes else Counter[int]()
    return MapPictures(found, class_colours(run, shown, areas))


def _row(run: Run, key: tuple[str, int, str], image: bytes, truth: bytes, answers: dict[str, bytes]) -> Row:
    scale, words = scale_of(run, key[2], truth)
    uri, small = embed(image)
    shown = {name: _picture(png, scale, _own(run, name, key)) for name, png in answers.items()}
    return Row(*key, Picture(uri, small), _picture(truth, scale), shown, words)


def scale_of(run: Run, id: str, truth: bytes) -> tuple[tuple[float, float] | None, str]:
    """The nearest and farthest of a truth's depths in metres, and in words; (None, "") of masks."""
    if run.kind.classes:
        return None, ""
    known = _pixels(truth)[_pixels(truth) > 0] / 1000
    if not len(known):
        raise DiffcernError(f"the depth of {id} in truths.parquet is known nowhere: it was changed; {AGAIN}")
    scale = (float(known.min()), float(known.max()))
    return scale, f"{scale[0]:.1f} to {scale[1]:.1f} m"


def _own(run: Run, entry: str, key: tuple[str, int, str]) -> float:
    """The task's first metric of one image alone."""
    cell = run.cells[entry, key[0], key[1]]
    at = np.flatnonzero(cell.ids == key[2])
    return float(run.kind.metrics[0].of(cell.statistics[at[0]])) if len(at) and cell.labelled[at[0]] else np.nan


def _picture(png: bytes, scale: tuple[float, float] | None, value: float = np.nan) -> Picture:
    data, small = drawn(png, scale)
    return Picture(f"data:image/png;base64,{base64.b64encode(data).decode()}", small, value)


def drawn(png: bytes, scale: tuple[float, float] | None) -> tuple[bytes, bool]:
    """A mask in its own palette, a depth in colours from the near end of its scale to the far one: a PNG, and whether
    it is enlarged as pixels."""
    image = picture(png)
    if scale is not None:
        image = _coloured(_pixels(png) / 1000, *scale)
    small = max(image.size) <= PIXELATED
    if max(image.size) > LARGEST:
        image.thumbnail((LARGEST, LARGEST), Image.Resampling.NEAREST)  # indices are not mixed
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue(), small


def _coloured(depth: NDArray[Any], near: float, far: float) -> Image.Image:
    """Metres as an image with a palette, by their logarithm; what is unknown (0) is grey."""
    share = np.log(np.maximum(depth, 1e-3) / near) / max(np.log(far / near), 1e-6)
    indices = np.where(depth > 0, 1 + np.clip(share, 0, 1) * 254, 0).round().astype(np.uint8)
    image: Image.Image = Image.fromarray(indices)
    colours = (255 * colormaps[COLOURS](np.linspace(0, 1, 255))[:, :3]).round().astype(int)
    image.putpalette([150, 150, 150, *colours.ravel().tolist()])
    return image


def areas_of(pngs: Iterable[bytes]) -> Counter[int]:
    """The pixels of each class in masks."""
    areas = Counter[int]()
    for png in pngs:
        classes, counts = np.unique(_pixels(png), return_counts=True)
        areas.update(dict(zip(classes.tolist(), counts.tolist(), strict=True)))
    return areas


def class_colours(run: Run, truths: list[bytes], areas: Mapping[int, int]) -> list[tuple[str, str]]:
    """The classes that truths and answers show, the largest that a legend can hold, and void, with their colours."""
    if not run.kind.classes or not truths:
        return []
    palette = picture(truths[0]).getpalette() or []
    palette += [0] * (3 * 256 - len(palette))
    largest = sorted((k for k in areas if k < len(run.classes)), key=lambda k: -areas[k])[:NAMED]
    named = [(k, class_name(run, k)) for k in sorted(largest)]
    named += [(k, "void") for k in sorted(areas) if k >= len(run.classes)]
    return [(name, "#{:02x}{:02x}{:02x}".format(*palette[3 * k : 3 * k + 3])) for k, name in named]


def _pixels(png: bytes) -> NDArray[Any]:
    return np.asarray(picture(png))
