"""The pictures of a view, as files: images as each shift showed them, and of maps the truth and every answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from diffcern.configs import read_config
from diffcern.data import UnreadableImage, encode_png
from diffcern.errors import DiffcernError, first_line
from diffcern.fingerprints import digest
from diffcern.report.columns import by_cell, read_table
from diffcern.report.gallery import EXAMPLES, reduced
from diffcern.report.maps import PICTURES, TRUTH_PICTURES, areas_of, class_colours, drawn, scale_of
from diffcern.report.run import Run
from diffcern.report.summary import CLEAN
from diffcern.watching import Report

MANY = 1000  # pictures, of 48 kB at most: a view stays under 50 MB
Condition = tuple[str, int]


@dataclass
class Pictures:
    """Names of files by number of image; shown: also by condition, maps: by "condition-entry".

    scales: of depths, in words. colours: of the classes of masks. sentence: which images have pictures, and why others
    have none.
    """

    shown: dict[int, dict[int, str]] = field(default_factory=dict)
    clean: dict[int, str] = field(default_factory=dict)
    truths: dict[int, str] = field(default_factory=dict)
    maps: dict[int, dict[str, str]] = field(default_factory=dict)
    scales: dict[int, str] = field(default_factory=dict)
    colours: list[tuple[str, str]] = field(default_factory=list)
    sentence: str = ""


def write_pictures(run: Run, ids: NDArray[Any], folder: Path, count: int | None, report: Report) -> Pictures:
    """Pictures of `count` images under each shift: made again where the data set is here, else those that the run
    folder keeps. None: as many as make `MANY` pictures."""
    found = Pictures()
    numbers = {id: n for n, id in enumerate(ids.tolist())}
    conditions = {condition: c for c, condition in enumerate(run.conditions)}
    each = max(1, MANY // (len(run.conditions) + 1)) if count is None else count
    if not each:
        found.sentence = "This view was made without pictures (--images 0)."
        return found
    try:
        made, reason = _again(run, each, report), ""
        first = next(made, None)
    except (DiffcernError, OSError) as error:
        first, reason = None, first_line(error).rstrip(".")
    if first is None:
        made = _kept(run)
        first = next(made, None)
    for id, condition, png in chain([first], made) if first else ():
        if id in numbers and (condition is None or condition in conditions):
            _write(found, conditions.get(condition) if condition else None, numbers[id], png, folder)
    _maps(run, conditions, numbers, folder, found)
    images = len(found.shown.keys() | found.clean.keys())
    if reason:
        rest = f"the {images:,} images that the run folder keeps" if images else "no image"
        found.sentence = f"There are pictures of {rest}: the data set cannot be opened here ({reason})."
    elif images < len(ids):
        found.sentence = f"There are pictures of {images:,} images, the first of the run's order (--images N: more)."
    return found


def _again(run: Run, count: int, report: Report) -> Iterator[tuple[str, Condition | None, bytes]]:
    """(id, condition, PNG) of the first images of the run's order, by what the bench made them with. Raises
    DiffcernError or OSError where the data are not here."""
    from diffcern.run.bench import images_of, order_of, shown_image
    from diffcern.run.spec import read_world

    spec = read_world(run.path / "spec.toml")
    images = images_of(spec)
    order = order_of(len(images), spec.seed)
    known: dict[str, str] = read_config(run.path / "fingerprint.json", dict[str, str], "A bench writes it")
    if known.get("images") != digest([images.ids[index] for index in order]):
        raise DiffcernError(f"{spec.data.dataset} holds other images than this run met")
    chosen = order[:count]
    for done, index in enumerate(chosen):
        report(done, len(chosen), "pictures")
        try:
            sample = images[index]
            if (CLEAN, 0) not in run.conditions:
                yield sample.id, None, encode_png(sample.image)
            for shift, severity in run.conditions:
                yield (
                    sample.id,
                    (shift, severity),
                    encode_png(shown_image(spec, images, sample, index, shift, severity)),
                )
        except UnreadableImage:
            continue
        except (DiffcernError, OSError):  # the data went away on the way: what is drawn is shown
            if done == 0:
                raise
            break
    report(len(chosen), len(chosen), "pictures")


def _kept(run: Run) -> Iterator[tuple[str, Condition | None, bytes]]:
    """(id, condition, PNG) of the examples in the run folder."""
    file = run.path / "examples.parquet"
    if file.is_file():
        for row in read_table(file, EXAMPLES).to_pylist():
            yield row["id"], (row["shift"], row["severity"]), row["image"]
            if row["clean"] and (CLEAN, 0) not in run.conditions:
                yield row["id"], None, row["clean"]


def _write(found: Pictures, c: int | None, n: int, png: bytes, folder: Path) -> None:
    """c: the condition's number, None for the clean image where the run does not show it."""
    place: dict[Any, str] = found.clean if c is None else found.shown.setdefault(n, {})
    if (key := n if c is None else c) not in place:
        data, kind, _ = reduced(png)
        place[key] = f"{n}-{'clean' if c is None else c}.{kind}"  # of numbers: an id may hold anything
        (folder / place[key]).write_bytes(data)


def _maps(run: Run, conditions: dict[Condition, int], numbers: dict[str, int], folder: Path, found: Pictures) -> None:
    """The truths and answers that the run folder keeps."""
    file = run.path / "truths.parquet"
    if not (run.kind.dense and file.is_file()):
        return
    truths = {row["id"]: row["png"] for row in read_table(file, TRUTH_PICTURES).to_pylist() if row["id"] in numbers}
    scales = {id: scale_of(run, id, png) for id, png in truths.items()}
    for id, png in truths.items():
        n = numbers[id]
        found.truths[n], found.scales[n] = f"{n}-truth.png", scales[id][1]
        (folder / found.truths[n]).write_bytes(drawn(png, scales[id][0])[0])
    areas = areas_of(truths.values()) if run.kind.classes else Counter[int]()
    entries = {entry.name: e for e, entry in enumerate(run.entries)}
    for (entry, shift, severity), table in by_cell(run.path / "answers", PICTURES).items():
        c, e = conditions.get((shift, severity)), entries.get(entry)
        for row in table.to_pylist():
            if row["id"] in truths and c is not None and e is not None:
                n = numbers[row["id"]]
                name = found.maps.setdefault(n, {})[f"{c}-{e}"] = f"{n}-{c}-{e}.png"
                (folder / name).write_bytes(drawn(row["png"], scales[row["id"]][0])[0])
                if run.kind.classes:
                    areas.update(areas_of([row["png"]]))
    found.colours = class_colours(run, list(truths.values()), areas)
