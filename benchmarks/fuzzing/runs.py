"""Run folders: `report` shows the numbers that it showed before, or says what is damaged; `bench` mends what it can."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from diffcern.data import encode_png
from diffcern.data.maps import encode_mask
from diffcern.report import summarise, write_report
from diffcern.run.evaluate import evaluate
from diffcern.run.spec import Spec, parse_spec

from . import tiny
from .damage import ODD, changed_value, damaged_bytes
from .outcomes import Case

SHOWN = ("entry", "method", "shift", "severity", "metric", "value", "ci_low", "ci_high", "n", "difference_to_source")


class RunFolders:
    """One file of a run of two entries on two shifts, of classes or of maps, is damaged; it is reported, or the bench
    is run again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        tiny.pictures(folder / "data" / "cat", 12), tiny.pictures(folder / "data" / "dog", 12)
        masks = [{"bytes": encode_mask(torch.full((8, 8), k % 4)), "path": None} for k in range(8)]
        stored = [{"bytes": encode_png(image), "path": None} for image in tiny.images(8)]
        pq.write_table(pa.table({"image": stored, "mask": masks}), folder / "masks.parquet")
        data = {
            "classification": f"imagefolder:{folder / 'data'}",
            "segmentation": f"parquet:{folder / 'masks.parquet'}",
        }
        self.specs = {task: self._spec(task, dataset) for task, dataset in data.items()}
        self.wholes = {task: folder / f"whole-{task}" for task in self.specs}
        for task, place in self.wholes.items():
            self._bench(task, place)
        self.numbers = {task: numbers(place) for task, place in self.wholes.items()}
        self.records = {task: records(place) for task, place in self.wholes.items()}

    def _spec(self, task: Any, dataset: str) -> Spec:
        architecture = "small-resnet" if task == "classification" else "small-unet"
        model = tiny.predictor(self.folder / f"predictor-{task}", architecture, task)
        data: dict[str, Any] = {"dataset": dataset}
        models: dict[str, Any] = {"predictor": str(model), "task": task}
        if task == "classification":
            models["labels"] = list(tiny.NAMES)
        else:
            data["class_names"] = list(tiny.NAMES)
        return parse_spec(
            {
                "name": "tiny",
                "data": data,
                "models": models,
                "shifts": {"names": ["clean", "noise"], "severities": [3]},
                "entries": {
                    "source": {"method": "source", "batch_size": 20},
                    "tent": {"method": "tent", "protocol": "online", "batch_size": 4},
                },
            }
        )

    def _bench(self, task: str, folder: Path) -> bool:
        return evaluate(self.specs[task], folder, device=torch.device("cpu"))[0]

    def case(self, rng: Random) -> Case:
        task = rng.choice(["classification", "classification", "segmentation"])
        place = self.wholes[task]
        files = sorted(path.relative_to(place) for path in place.rglob("*") if path.is_file())
        file, again, whole = rng.choice(files), rng.random() < 0.3, rng.random() < 0.03
        content = (place / file).read_bytes()
        older = rng.random() < 0.2 and file.parts[0] != "records"  # without checksums, an edited record is believed
        what, changed = "whole", content
        if not whole:
            way = rng.random()
            if way < 0.1:
                what, changed = "left out", None
            elif file.suffix == ".json" and way < 0.7:
                what, value = changed_value(json.loads(content), rng, is_damage)
                changed = json.dumps(value).encode()
            elif file.suffix == ".parquet" and way < 0.6:
                what, table = changed_table(pq.read_table(place / file), rng)
                sink = pa.BufferOutputStream()
                pq.write_table(table, sink)
                changed = sink.getvalue().to_pybytes()
            else:
                what, changed = damaged_bytes(content, rng)
        run = self._mended if again else self._reported
        described = f"{'bench' if again else 'report'} of {task}, {file} {what}{', older' if older else ''}"
        return Case(described, lambda: run(task, self._put(task, file, changed, older), file), whole)

    def _put(self, task: str, file: Path, content: bytes | None, older: bool) -> Path:
        place = self.folder / "damaged"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.wholes[task], place)
        if older:
            for timings in (place / "timings").iterdir():
                pq.write_table(pq.read_table(timings).replace_schema_metadata(None), timings)
        (place / file).unlink() if content is None else (place / file).write_bytes(content)
        return place

    def _reported(self, task: str, place: Path, file: Path) -> bool:
        if file.parts[0] not in ("records", "timings", "skipped"):  # what the page is made of besides
            write_report(place)
        return agree(self.numbers[task], numbers(place))

    def _mended(self, task: str, place: Path, file: Path) -> bool:
        """Whether the records are what they were once the bench has been run again."""
        if not self._bench(task, place) or records(place) != self.records[task]:
            return False
        return agree(self.numbers[task], numbers(place))


def records(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "records").iterdir())}


def numbers(folder: Path) -> dict[tuple[Any, ...], dict[str, Any]]:
    """What a report shows of each cell, by entry, shift, severity and metric."""
    rows = summarise(folder)
    return {(row["entry"], row["shift"], row["severity"], row.get("metric")): row for row in rows}


def agree(before: dict[tuple[Any, ...], dict[str, Any]], after: dict[tuple[Any, ...], dict[str, Any]]) -> bool:
    """Whether all numbers are the same; a cell that lacks images, and what is compared with it, may differ, since the
    report says so."""
    whole = all(row["complete"] for row in after.values())
    shown = SHOWN if whole else SHOWN[:-1]
    for key, row in after.items():
        if row["complete"] and any(row.get(name) != before.get(key, {}).get(name) for name in shown):
            return False
    return not whole or before.keys() == after.keys()


def is_damage(path: tuple[Any, ...], old: Any, new: Any) -> bool:
    """Whether a change is one that could be noticed: another name or description is one."""
    if isinstance(old, str) and isinstance(new, str):
        return not new.strip()
    return not (isinstance(old, int) and isinstance(new, int) and not isinstance(new, bool) and new > 0)


def changed_table(table: pa.Table, rng: Random) -> tuple[str, pa.Table]:
    """Rows left out, doubled or moved; a column left out, or with another kind of values."""
    way = rng.choice(["rows", "double", "turned", "no column", "nulls", "odd", "none"])
    name = rng.choice(table.column_names)
    place = table.column_names.index(name)
    if way == "rows":
        return "rows missing", table.slice(rng.randint(1, max(1, len(table) - 1)))
    if way == "double":
        return "a row twice", pa.concat_tables([table, table.slice(0, 1)])
    if way == "turned":
        return "rows in another order", table.take(list(range(len(table)))[::-1])
    if way == "none":
        return "no rows", table.slice(0, 0)
    if way == "no column":
        return f"no column {name}", table.drop_columns([name])
    values: list[Any] = table[name].to_pylist()
    if way == "nulls":
        values = [None, *values[1:]] if rng.random() < 0.5 else [None] * len(values)
    else:
        odd = rng.choice([value for value in ODD if value != {}])  # which Parquet has no form for
        values = [odd] * len(values)
    try:
        return f"{name} {way}", table.set_column(place, name, pa.array(values))
    except (pa.ArrowException, OverflowError):
        return "no rows", table.slice(0, 0)
