"""Tables with damaged footers, odd metadata and cells of other types; Winoground folders that are not as published."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from diffcern.data import load_dataset, load_pairs, load_questions
from diffcern.errors import DiffcernError

IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def png(value: int = 7) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (8, 8), value).save(buffer, format="PNG")
    return buffer.getvalue()


def table(path: Path, metadata: bytes | None = None, **columns: Any) -> str:
    count = len(next(iter(columns.values())))
    images = pa.array([{"bytes": png(k), "path": None} for k in range(count)], IMAGE)
    made = pa.table({"image": images, **columns})
    pq.write_table(made.replace_schema_metadata({b"huggingface": metadata} if metadata is not None else None), path)
    return str(path)


def described(names: Any) -> bytes:
    return json.dumps({"info": {"features": {"label": {"_type": "ClassLabel", "names": names}}}}).encode()


@pytest.mark.parametrize(
    "metadata",
    [
        b"{",
        b"\xff\xfe\x00x",
        b"[]",
        b"3",
        b"[" * 100_000,
        b'{"info": []}',
        b'{"info": "x"}',
        b'{"info": {"features": ["label"]}}',
        b'{"info": {"features": 3}}',
        described("ab"),
        described([1, 2]),
        described([None, "b"]),
        described({"0": "a", "1": "b"}),
        described(3),
    ],
)
def test_odd_hugging_face_metadata_is_named(tmp_path: Path, metadata: bytes) -> None:
    path = table(tmp_path / "a.parquet", metadata, label=[0, 1])
    with pytest.raises(DiffcernError, match=r"cannot read .*a\.parquet: .*or without its Hugging Face metadata"):
        load_dataset(path)


@pytest.mark.parametrize(
    ("metadata", "names"),
    [
        (None, ("0", "1")),
        (b"{}", ("0", "1")),
        (b'{"info": null}', ("0", "1")),
        (b'{"info": {"features": {}}}', ("0", "1")),
        (b'{"info": {"features": {"x": [{"dtype": "string"}], "label": {"dtype": "int64"}}}}', ("0", "1")),
        (described(None), ("0", "1")),
        (described(["cat", "dog"]), ("cat", "dog")),
        (b"\xef\xbb\xbf" + described(["cat", "dog"]), ("cat", "dog")),
    ],
)
def test_metadata_that_says_nothing_of_labels_is_fine(tmp_path: Path, metadata: bytes, names: tuple[str, ...]) -> None:
    assert load_dataset(table(tmp_path / "a.parquet", metadata, label=[0, 1])).class_names == names


def test_a_damaged_footer_is_an_error_of_the_file(tmp_path: Path) -> None:
    """Every byte of the footer in turn: nothing but ours is raised, or the data set says what it said."""
    path = tmp_path / "a.parquet"
    table(path, described(["cat", "dog"]), label=[0, 1], id=["a", "b"])
    whole = path.read_bytes()
    length = int.from_bytes(whole[-8:-4], "little")
    for place in range(len(whole) - 8 - length, len(whole), 5):
        for bit in (1, 128):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
            try:
                data = load_dataset(str(path))
                _ = [data[index] for index in range(len(data))], data.targets, data.class_names
            except DiffcernError:
                continue


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": [True, False]}, "must hold integer labels, but holds True"),
        ({"label": [0, 2**40]}, f"has the label {2**40}, and names no classes"),
        ({"label": [0.0, math.nan]}, "must hold integer labels"),
        ({"id": ["a", None]}, "column 'id' must hold texts or numbers, but holds None"),
        ({"id": [True, False]}, "column 'id' must hold texts or numbers, but holds True"),
        ({"id": [1.0, math.nan]}, "column 'id' must hold texts or numbers, but holds nan"),
        ({"id": ["a", ""]}, "column 'id' must hold texts or numbers, but holds ''"),
    ],
)
def test_labels_and_ids_of_other_types(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(DiffcernError, match=message):
        load_dataset(table(tmp_path / "a.parquet", **columns))


def test_texts_that_are_no_utf_8_and_columns_twice(tmp_path: Path) -> None:
    content = pa.array([b"a cat", b"\xff\xfe"])
    texts = pa.Array.from_buffers(pa.string(), 2, content.buffers())
    path = table(tmp_path / "a.parquet", caption=texts)
    with pytest.raises(DiffcernError, match=r"cannot read .*a\.parquet: .*'caption' is damaged"):
        load_pairs(f"pairs:{path}")
    images = pa.array([{"bytes": png(), "path": None}], IMAGE)
    twice = pa.Table.from_arrays([images, pa.array([0]), pa.array([1])], names=["image", "label", "label"])
    pq.write_table(twice, path)
    with pytest.raises(DiffcernError, match="two columns 'label': which one is meant"):
        load_dataset(path)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"caption": ["a", "b"], "negatives": [3, 4]}, "negatives of example '0' must be a list of texts, but is 3"),
        ({"caption": ["a", "b"], "negatives": ["cat", "dog"]}, "negatives of example '0' must be a list of texts"),
        ({"caption": ["a", "b"], "negatives": [[1], [2]]}, "caption of example '0' must be a text, but is 1"),
        ({"caption": ["a", "b"], "negatives": [[None], []]}, "must be a text, but is None"),
        ({"caption": [1, 2]}, "must be a text, but is 1"),
        ({"caption": [["a"], ["b"]]}, "must be a text"),
        ({"caption": ["a", "b"], "group": [True, False]}, "column 'group' must hold texts or numbers"),
    ],
)
def test_pairs_of_other_types(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(DiffcernError, match=message):
        load_pairs(f"pairs:{table(tmp_path / 'a.parquet', **columns)}")


def test_groups_that_pandas_left_out_are_rows_alone(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", caption=["a", "b", "c"], group=[1.0, math.nan, math.nan])
    assert list(load_pairs(f"pairs:{path}").ids) == ["1.0", "1", "2"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"question": ["a?"], "answer": [3]}, "answer of question '0' must be a text, but is 3"),
        ({"question": ["a?"], "answer": ["b"], "choices": ["b"]}, "choices of question '0' must be a list of texts"),
        ({"question": ["a?"], "answer": ["b"], "choices": [["b", " "]]}, "a choice of question '0' must be a text"),
        ({"question": ["a?"], "answer": ["b"], "kind": [3]}, "kind of question '0' must be a text, but is 3"),
    ],
)
def test_questions_of_other_types(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(DiffcernError, match=message):
        load_questions(f"questions:{table(tmp_path / 'a.parquet', **columns)}")


GOOD = {"id": 0, "image_0": "a", "image_1": "b", "caption_0": "x", "caption_1": "y", "tag": "Noun"}


def winoground(root: Path, row: Any, encoded: bytes | None = None) -> str:
    (root / "images").mkdir(parents=True, exist_ok=True)
    for name in ("a", "b", "3"):
        (root / "images" / f"{name}.png").write_bytes(png())
    (root / "examples.jsonl").write_bytes(json.dumps(row).encode() + b"\n" if encoded is None else encoded)
    return f"winoground:{root}"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**GOOD, "image_0": 3}, r"line 1: image_0 must be the name of an image, but is 3"),
        ({**GOOD, "image_1": ["b"]}, r"line 1: image_1 must be the name of an image, but is \['b'\]"),
        ({**GOOD, "image_0": None}, r"image_0 must be the name of an image, but is None"),
        ({**GOOD, "image_0": {"path": "a"}}, "image_0 must be the name of an image"),
        ({**GOOD, "image_0": ""}, "image_0 must be the name of an image"),
        ({key: value for key, value in GOOD.items() if key != "image_0"}, "not a JSON object with id, image_0"),
        ({**GOOD, "image_0": "c"}, "lacks images that examples.jsonl names: c"),
        ({**GOOD, "caption_0": 3}, "caption_0 of example '0' must be a text, but is 3"),
        ({**GOOD, "tag": ["Noun"]}, "tag of example '0' must be a text"),
        ({**GOOD, "id": None}, "'id' must hold texts or numbers, but holds None"),
        ([GOOD], "not a JSON object"),
        ("a", "not a JSON object"),
    ],
)
def test_winoground_rows_of_other_types(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(DiffcernError, match=message):
        load_pairs(winoground(tmp_path, row))


def test_winoground_files_of_other_kinds(tmp_path: Path) -> None:
    line = json.dumps(GOOD).encode()
    with pytest.raises(DiffcernError, match=r"examples\.jsonl, line 2: not UTF-8"):
        load_pairs(winoground(tmp_path, GOOD, line + b'\n{"id": "caf\xe9"}\n'))
    with pytest.raises(DiffcernError, match=r"examples\.jsonl, line 2 is not JSON"):
        load_pairs(winoground(tmp_path, GOOD, line + b"\n{\n"))
    pairs = load_pairs(winoground(tmp_path, GOOD, b"\xef\xbb\xbf" + line + b"\r\n\r\n"))
    assert pairs.entries[0].captions == ("x", "y")
    separated = {**GOOD, "caption_0": "x\u2028y"}
    pairs = load_pairs(winoground(tmp_path, GOOD, json.dumps(separated, ensure_ascii=False).encode()))
    assert pairs.entries[0].captions[0] == "x\u2028y"
    (tmp_path / "images" / "a.jpg").write_bytes(png())
    with pytest.raises(DiffcernError, match=r"several images called a, which examples\.jsonl names"):
        load_pairs(winoground(tmp_path, GOOD))
