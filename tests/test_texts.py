"""Text files of any origin: read right, or what is wrong is named with its line."""

from __future__ import annotations

import codecs
import json
from pathlib import Path

import pytest

from diffcern.errors import DiffcernError, UsageError
from diffcern.given import names_of, parse_class_map, parse_labels
from diffcern.labels import Vocabulary, vocabulary_of
from diffcern.priors.controlnet import read_palette
from diffcern.run.spec import read_spec
from diffcern.texts import is_file, parse_csv, read_json, read_json_lines, read_text, read_toml

PROMPTS = "label,prompt\ncafé,a photo of a café\ncat,a cat\n"
MARKED = {
    "plain": str.encode,
    "marked": lambda text: codecs.BOM_UTF8 + text.encode(),
    "utf-16": lambda text: text.encode("utf-16"),
    "utf-16-be": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    "utf-32": lambda text: text.encode("utf-32"),
}


@pytest.fixture
def put(tmp_path):
    def put(content: str | bytes, name: str = "f.txt") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return put


@pytest.mark.parametrize("encode", MARKED.values(), ids=MARKED)
def test_a_byte_order_mark_is_no_text(put, encode):
    assert parse_labels(str(put(encode("café\r\ncat\n")))) == ["café", "cat"]
    prompts = {"café": ["a photo of a café"], "cat": ["a cat"]}
    assert parse_labels(str(put(encode(PROMPTS), "p.csv"))) == prompts
    assert parse_class_map(put(encode('{"tabby": "cat"}'))) == {"tabby": "cat"}
    assert read_palette(put(encode('{"wall": "#ff0000"}'))) == {"wall": (1.0, 0.0, 0.0)}
    spec = (Path(__file__).parents[1] / "src/diffcern/specs/digits.toml").read_text()
    assert read_spec(put(encode(spec), "s.toml")).name == read_spec("digits").name
    assert read_json_lines(put(encode('{"a": "x\u2028y"}\n\n[1]\n')))[0][1] == {"a": "x\u2028y"}


@pytest.mark.parametrize("content", [b"cat\ncaf\xe9\n", "cat\ndog\n".encode("utf-16-le"), b"cat\n\0\0\0"])
@pytest.mark.parametrize("name", ["f.txt", "f.csv", "f.json", "f.toml"])
def test_what_is_no_text_is_named_with_its_line(put, content, name):
    path = put(content, name)
    line = content.count(b"\n", 0, content.find(b"\xe9") if b"\xe9" in content else content.find(b"\0")) + 1
    readers = {
        "f.txt": lambda: parse_labels(str(path)),
        "f.csv": lambda: parse_labels(str(path)),
        "f.json": lambda: parse_class_map(path),
        "f.toml": lambda: read_spec(path),
    }
    with pytest.raises(UsageError, match=rf"{name}, line {line}: not .*text.*UTF-8"):
        readers[name]()
    with pytest.raises(DiffcernError, match=f"line {line}"):
        read_text(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("label,prompt\ncat,a cat\ndog\n", "line 3: 1 cells where the header has 2"),
        ("label,prompt\ncat,a cat, black\n", "line 2: 3 cells where the header has 2.*quotes"),
        ("label,prompt\ncat,a cat\n ,a dog\n", "line 3: label is empty"),
        ("label,prompt\ncat,\ndog,a dog\n", "line 2: prompt is empty"),
        ("label,prompt,prompt\ncat,a,b\ndog,c,d\n", "names prompt twice"),
        ("label;prompt\ncat;a cat\n", "no column label or classname .*; it has label;prompt"),
        ('label,prompt\n"cat,a cat\ndog,a dog\n', "not CSV"),
        ("", "no column label"),
        ("label,prompt\n", "holds no labels"),
    ],
)
def test_rows_of_prompts_are_whole(put, content, message):
    with pytest.raises(UsageError, match=message):
        parse_labels(str(put(content, "p.csv")))


def test_cells_and_lines_with_nothing_in_them(put):
    path = put(' classname , prompt , note\n"cat","a cat, black",\n\n , ,\ndog,a dog,seen\n', "p.csv")
    assert parse_labels(str(path)) == {"cat": ["a cat, black"], "dog": ["a dog"]}
    assert parse_labels(str(put("cat\n\n  dog  \n"))) == ["cat", "dog"]
    with pytest.raises(DiffcernError, match="line 2: note is empty"):
        parse_csv(path.read_text(), path, [("note",)])


def test_labels_twice_empty_or_no_file(put):
    with pytest.raises(UsageError, match="given twice: cat"):
        vocabulary_of(parse_labels(str(put("cat\ndog\ncat\n"))), None)
    with pytest.raises(UsageError, match="there is no file"):
        parse_labels("none.csv")
    assert parse_labels(str(put("a\nb\n", "x,y.txt"))) == ["a", "b"]
    assert not is_file("x" * 10_000)
    assert not is_file("a\0b")
    with pytest.raises(UsageError, match="different names"):
        names_of("cat,,dog")
    with pytest.raises(UsageError, match="is empty"):
        Vocabulary(("cat", " "), (("a",), ("b",)))
    with pytest.raises(UsageError, match="is empty"):
        Vocabulary(("cat", "dog"), (("a",), ("",)))


@pytest.mark.parametrize("content", ["[1]", '{"a": 1}', '{"a": ""}', '{"": "a"}', '{"a": "b", "a": "c"}', "{", "NaN"])
def test_a_class_map_is_names_to_names(put, content):
    with pytest.raises(UsageError):
        parse_class_map(put(content))


def test_json_and_toml_that_are_none(put):
    deep = "[" * 100_000
    for content in (deep, '{"a": NaN}', '{"a": -Infinity}', "", "x"):
        with pytest.raises(DiffcernError, match=r"f\.txt"):
            read_json(put(content))
    for content in (f"a = {deep}", "a = ", "a = 1\na = 2"):
        with pytest.raises(DiffcernError, match="is not TOML"):
            read_toml(put(content))
    with pytest.raises(DiffcernError, match=r"f\.txt, line 2 is not JSON"):
        read_json_lines(put(json.dumps({"a": 1}) + "\n{\n"))
    with pytest.raises(DiffcernError, match="cannot read"):
        read_text(put("").parent / "none.txt")
