"""What rows answer about: another image, caption or question is another digest; the same is the same."""

from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from diffcern.data import Questions, Subset, encode_png, load_dataset, load_pairs, load_questions
from diffcern.run import digests
from diffcern.run.digests import beside, of_examples, of_images, of_questions


def png(seed):
    return encode_png(torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(seed)))


def test_of_images(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(png(ord(name)))
    data = load_dataset(str(tmp_path))
    found, some = of_images(data), of_images(Subset(data, [1]))
    before = {id: found(id) for id in data.ids}
    assert len(set(before.values())) == 2
    assert some("b.png") == before["b.png"]
    assert (some("a.png"), found("gone.png")) == ("", "")
    (tmp_path / "a.png").write_bytes(png(3))
    assert found("a.png") != before["a.png"]
    (tmp_path / "b.png").unlink()
    assert found("b.png") == "unreadable"
    assert of_images(load_dataset("embedded:digits"))("digits-0000") == ""  # made, not stored


def written(path, seed=0, **changes):
    rows = {"image": [png(seed)], "caption": ["a"], "negatives": [["b"]], "question": ["what?"], "answer": ["a"]}
    pq.write_table(pa.table({**rows, "choices": [["a", "b"]], "id": ["0"], **changes}), path)
    return path


@pytest.mark.parametrize("changes", [{"seed": 1}, {"caption": ["c"]}, {"negatives": [["d"]]}])
def test_of_examples(tmp_path, changes):
    path = written(tmp_path / "p.parquet")
    before = of_examples(load_pairs(f"pairs:{path}"))("0")
    assert of_examples(load_pairs(f"pairs:{path}"))("0") == before
    found = of_examples(load_pairs(f"pairs:{written(path, **changes)}"))
    assert found("0") != before
    assert found("1") == ""


@pytest.mark.parametrize("changes", [{"seed": 1}, {"question": ["who?"]}, {"answer": ["b"]}, {"choices": [["a", "c"]]}])
def test_of_questions(tmp_path, changes):
    path = written(tmp_path / "q.parquet")
    before = of_questions(load_questions(f"questions:{path}"))("0")
    assert of_questions(load_questions(f"questions:{path}"))("0") == before
    found = of_questions(load_questions(f"questions:{written(path, **changes)}"))
    assert found("0") != before
    assert found("1") == ""


def test_of_questions_of_another_kind(tmp_path):
    data = load_questions(f"questions:{written(tmp_path / 'q.parquet')}")
    other = Questions("q", [replace(data.asked[0], kind="colour")])
    assert of_questions(other)("0") != of_questions(data)("0")


def test_an_unchanged_file_is_not_read_again(tmp_path, monkeypatch):
    """On the way to a result; one of another time or size is, and so is an image that a table only names."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.png").write_bytes(png(ord(name)))
    data, out, read = load_dataset(str(folder)), tmp_path / "rows.json", []
    original = digests._content
    monkeypatch.setattr(digests, "_content", lambda source, row: read.append(row) or original(source, row))
    before = {id: of_images(data, out)(id) for id in data.ids}
    assert before == {id: of_images(data)(id) for id in data.ids}
    read.clear()
    assert {id: of_images(data, out)(id) for id in data.ids} == before
    assert read == []
    (folder / "b.png").write_bytes(png(7))
    with beside(out).open("a") as file:
        file.write('["c.png", "torn')
    after = {id: of_images(data, out)(id) for id in data.ids}
    assert read == [1]
    assert {id for id in data.ids if after[id] != before[id]} == {"b.png"}
    pq.write_table(pa.table({"image": [str(folder / "a.png")], "id": ["0"]}), tmp_path / "t.parquet")
    table, read[:] = load_dataset(f"parquet:{tmp_path / 't.parquet'}"), []
    first = of_images(table, tmp_path / "t.json")("0")
    (folder / "a.png").write_bytes(png(8))
    assert of_images(table, tmp_path / "t.json")("0") != first


def test_what_cannot_be_read_is_asked_again(tmp_path):
    """A row that names an address is skipped, kept or not; a file that could not be read may be readable now."""
    rows = {"image": [{"bytes": png(1), "path": None}, {"bytes": None, "path": "http://x/y.png"}], "id": ["0", "1"]}
    pq.write_table(pa.table(rows), tmp_path / "t.parquet")
    data = load_dataset(f"parquet:{tmp_path / 't.parquet'}")
    found = of_images(data, tmp_path / "t.json")
    assert [found(id) for id in data.ids] == [of_images(data)(id) for id in data.ids]
    assert found("1") == "unreadable"
    assert '"1"' not in beside(tmp_path / "t.json").read_text()
