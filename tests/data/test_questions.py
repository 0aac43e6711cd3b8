"""Tables of questions: what is read from them, and what their errors say."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from diffcern.data import UnreadableImage, load_questions, readable
from diffcern.errors import DiffcernError, UsageError

IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (4, 2), value).save(buffer, format="PNG")
    return buffer.getvalue()


def table(path: Path, *, images: list[bytes] | None = None, **columns: object) -> str:
    data = [{"bytes": image, "path": None} for image in images or [png(10), png(20)]]
    values = {"question": ["what is it?", "where is it?"], "answer": ["a dog", "here"]} | columns
    kept = {name: column for name, column in values.items() if column is not None}
    pq.write_table(pa.table({"image": pa.array(data, IMAGE), **kept}), path)
    return f"questions:{path}"


def test_a_table_of_questions(tmp_path: Path) -> None:
    name = table(tmp_path / "q.parquet", id=["x", "y"], kind=["what", None], choices=[["a dog", "a cat"], None])
    questions = load_questions(name)
    assert (len(questions), list(questions.ids)) == (2, ["x", "y"])
    first, second = questions
    assert (first.question, first.answer) == ("what is it?", "a dog")
    assert (first.choices, first.kind) == (("a dog", "a cat"), "what")
    assert (second.choices, second.kind) == ((), "")
    assert round(second.image.mean().item() * 255) == 20
    assert load_questions(name, max_side=2)[0].image.shape == (3, 1, 2)


def test_optional_columns_may_be_missing(tmp_path: Path) -> None:
    questions = load_questions(table(tmp_path / "q.parquet"))
    assert list(questions.ids) == ["0", "1"]
    assert (questions[1].choices, questions[1].kind) == ((), "")


def test_an_unreadable_image_names_its_question(tmp_path: Path) -> None:
    questions = load_questions(table(tmp_path / "q.parquet", images=[png(1), b"no image"]))
    with pytest.raises(UnreadableImage, match="'1'"):
        questions[1]
    assert [isinstance(question, UnreadableImage) for question in readable(questions)] == [False, True]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"answer": None}, "has no column answer; it has image, question"),
        ({"question": None, "answer": None}, "has no column question, answer; it has image"),
        ({"question": ["what?", " "]}, "question of question '1' must be a text, but is ' '"),
        ({"answer": ["a dog", None]}, "answer of question '1' must be a text, but is None"),
        ({"answer": [3, 4]}, "answer of question '0' must be a text, but is 3"),
        ({"choices": [["a dog"], ["there"]]}, r"'here' to question '1' is not among its choices, \('there',\)"),
        ({"choices": ["a dog", "here"]}, "choices of question '0' must be a list of texts, but is 'a dog'"),
        ({"choices": [["a dog", ""], []]}, "a choice of question '0' must be a text, but is ''"),
        ({"id": ["x", "x"]}, "'x' occurs 2 times"),
    ],
)
def test_errors_say_what_is_wrong(tmp_path: Path, columns: dict[str, object], message: str) -> None:
    name = table(tmp_path / "q.parquet", **columns)  # type: ignore[arg-type]
    with pytest.raises(DiffcernError, match=message):
        load_questions(name)


def test_unknown_names() -> None:
    with pytest.raises(UsageError, match="questions:FILE"):
        load_questions("question:here.parquet")
    with pytest.raises(UsageError, match="the form is questions:FILE"):
        load_questions("questions:")
    with pytest.raises(DiffcernError, match=r"no \.parquet file at nowhere"):
        load_questions("questions:nowhere.parquet")
