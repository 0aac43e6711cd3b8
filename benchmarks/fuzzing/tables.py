"""Tables, lists of examples, labels and class maps: read as they say, or refused with the line or the column."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from diffcern.data import encode_png, load_dataset, load_pairs, load_questions
from diffcern.given import parse_class_map, parse_labels

from . import tiny
from .damage import changed_value, damaged_bytes, encoded
from .outcomes import Case
from .runs import changed_table

IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
LABELS = "cat\ndog\ncow\nhen\n"
PROMPTS = 'label,prompt\ncat,a photo of a cat\ndog,"a dog, barking"\ncat,a cat\n'
CLASS_MAP = {"tabby": "cat", "poodle": "dog"}


class Tables:
    """Parquet with images, labels, captions or questions, Winoground folders, label files and class maps."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        stored = pa.array([{"bytes": encode_png(image), "path": None} for image in tiny.images(4)], IMAGE)
        features = {"label": {"_type": "ClassLabel", "names": list(tiny.NAMES)}, "image": {"_type": "Image"}}
        described = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
        ids = pa.array(["a", "b", "c", "d"])
        labelled = pa.table({"image": stored, "label": [0, 1, 2, 3], "id": ids}).replace_schema_metadata(described)
        said = list(tiny.CAPTIONS)
        pairs = pa.table({"image": stored, "caption": said, "id": ids, "negatives": [said[::-1]] * 4})
        asked = {"question": ["which?"] * 4, "answer": list(tiny.NAMES), "choices": [list(tiny.NAMES)] * 4}
        self.tables: dict[str, tuple[pa.Table, Callable[[Path], Any]]] = {
            "labels": (labelled, dataset),
            "pairs": (pairs, lambda path: matching(f"pairs:{path}")),
            "questions": (pa.table({"image": stored, "id": ids, **asked}), questions),
        }
        self.answers: dict[str, Any] = {}
        for name, (table, read) in self.tables.items():
            pq.write_table(table, folder / f"{name}.parquet")
            self.answers[name] = read(folder / f"{name}.parquet")
        self.winoground = folder / "winoground"
        tiny.pictures(self.winoground / "images", 4)
        sides = [{"id": k, "image_0": f"{2 * k}", "image_1": f"{2 * k + 1}"} for k in range(2)]
        self.rows = [row | {"caption_0": said[0], "caption_1": said[1], "tag": "Noun"} for row in sides]

    def case(self, rng: Random) -> Case:
        way = rng.random()
        if way < 0.55:
            return self._table(rng)
        if way < 0.7:
            return self._examples(rng)
        if way < 0.85:
            return self._labels(rng)
        return self._class_map(rng)

    def _table(self, rng: Random) -> Case:
        name = rng.choice(list(self.tables))
        table, read = self.tables[name]
        path, expected = self.folder / "table.parquet", self.answers[name]
        sink, way = io.BytesIO(), rng.random()
        what, whole, compared = "whole", way < 0.03, True
        if way < 0.4 and not whole:
            what, table = changed_table(table, rng)
            compared = False  # a value of another kind may be what the table now says
        elif way < 0.55 and not whole:
            content = (table.schema.metadata or {}).get(b"huggingface", b"{}")
            if rng.random() < 0.5:
                what, value = changed_value(json.loads(content), rng)
                content = json.dumps(value).encode()
            else:
                what, content = damaged_bytes(content, rng)
            what, compared = f"metadata {what}", False
            table = table.replace_schema_metadata({b"huggingface": content})
        pq.write_table(table, sink)
        data = sink.getvalue()
        if way >= 0.55:
            what, data = damaged_bytes(data, rng)

        def run() -> bool:
            path.write_bytes(data)
            found = read(path)
            return found == (expected if compared and way < 0.55 else as_stored(path, name, found))

        return Case(f"{name}, {what}", run, whole)

    def _examples(self, rng: Random) -> Case:
        rows: Any = self.rows
        what, whole = "whole", rng.random() < 0.03
        if not whole and rng.random() < 0.6:
            what, rows = changed_value(rows, rng)
        listed = rows if isinstance(rows, list) else [rows]
        content = "\n".join(json.dumps(row) for row in listed).encode()
        if not whole and what == "whole":
            what, content = damaged_bytes(content, rng)

        def run() -> bool:
            (self.winoground / "examples.jsonl").write_bytes(content)
            found = matching(f"winoground:{self.winoground}")
            text = content.decode("utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
            lines = [json.loads(line) for line in text.split("\n") if line.strip()]
            said = [(str(row["id"]), (row["caption_0"], row["caption_1"])) for row in lines]
            return [(id_, captions) for id_, captions, _ in found] == said

        return Case(f"winoground, {what}", run, whole)

    def _labels(self, rng: Random) -> Case:
        name, text = rng.choice([("labels.txt", LABELS), ("labels.csv", PROMPTS)])
        path = self.folder / name
        expected = parse(path, text.encode())
        if rng.random() < 0.5:
            what, data, readable = encoded(text.replace("cat", "cät") if rng.random() < 0.5 else text, rng)
            if readable:
                expected = parse(path, data.decode({"latin-1": "ascii"}.get(what, what)).encode())
            return Case(f"{name}, {what}", lambda: parse(path, data) == expected, whole=readable)
        what, data = damaged_bytes(text.encode(), rng)
        return Case(f"{name}, {what}", lambda: plausible(parse(path, data), data))

    def _class_map(self, rng: Random) -> Case:
        path = self.folder / "map.json"
        what, value = changed_value(CLASS_MAP, rng)
        data = json.dumps(value).encode()
        if rng.random() < 0.5:
            what, data = damaged_bytes(json.dumps(CLASS_MAP).encode(), rng)

        def run() -> bool:
            path.write_bytes(data)
            return bool(parse_class_map(path) == json.loads(data.decode("utf-8-sig")))

        return Case(f"class map, {what}", run)


def dataset(path: Path) -> Any:
    data = load_dataset(str(path))
    images = torch.stack([data[k].image for k in range(len(data))])
    return list(data.ids), list(data.targets), data.class_names, images.sum((1, 2, 3)).tolist()


def matching(name: str) -> Any:
    return [(example.id, example.captions, len(example.images)) for example in load_pairs(name)]


def questions(path: Path) -> Any:
    return [(asked.id, asked.question, asked.answer, asked.choices) for asked in load_questions(f"questions:{path}")]


def as_stored(path: Path, name: str, found: Any) -> Any:
    """What plain Arrow makes of the columns that are looked at; `found` itself where that is what they say."""
    rows = pq.read_table(path).to_pylist()
    ids = [str(row["id"]) if "id" in row else str(number) for number, row in enumerate(rows)]
    if name == "labels":
        targets = [-1 if row.get("label") is None else row["label"] for row in rows]
        kinds = all(isinstance(target, int) and not isinstance(target, bool) for target in targets)
        return found if (found[0], found[1]) == (ids, targets) and kinds else None
    if name == "pairs":
        captions = [(row["caption"], *(row.get("negatives") or [])) for row in rows]
        return found if [(part[0], part[1]) for part in found] == list(zip(ids, captions, strict=True)) else None
    asked = [(row["question"], row["answer"], tuple(row.get("choices") or ())) for row in rows]
    return found if [part[1:] for part in found] == asked and [part[0] for part in found] == ids else None


def parse(path: Path, data: bytes) -> Any:
    path.write_bytes(data)
    return parse_labels(str(path))


def plausible(labels: Any, data: bytes) -> bool:
    """Whether every label and sentence is a text of the file, without marks, zeros and space around it."""
    texts = [*labels, *(text for own in labels.values() for text in own)] if isinstance(labels, dict) else labels
    text = data.decode("utf-8-sig")
    return all(
        (part and part == part.strip() and "\0" not in part and part.replace('"', '""') in text) or part in text
        for part in texts
    )
