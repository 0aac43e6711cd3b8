"""A run folder of another shape, or with damaged files: the report says which file it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diffcern.errors import DiffcernError
from diffcern.report import summarise, write_report
from diffcern.report.records import load

from .conftest import Build, read, write

SHAPES = {
    "plan.json": [
        {"task": 3},
        {"images": "40"},
        {"images": 0},
        {"images": True},
        {"conditions": [["fog"]]},
        {"conditions": [["fog", "3"]]},
        {"conditions": [["fog", -1]]},
        {"conditions": {"fog": 3}},
        [],
        None,
    ],
    "entries.json": [{}, ["source"], [{"method": "source"}], [{"entry": 3}], [{"entry": "a", "batch_size": "1"}], None],
    "classes.json": [{}, "abc", [1, 2], [None], None],
}


@pytest.mark.parametrize(("name", "content"), [(name, shape) for name, shapes in SHAPES.items() for shape in shapes])
def test_files_of_another_shape_are_named(build: Build, name: str, content: Any) -> None:
    run = build()
    (run / name).write_text(json.dumps(content))
    with pytest.raises(DiffcernError, match=rf"{name.replace('.', '[.]')}.*Run the benchmark again"):
        write_report(run)


@pytest.mark.parametrize("content", [b"{", b"\xff\xff", b'{"images": NaN}', b"[" * 100_000])
@pytest.mark.parametrize("name", SHAPES)
def test_files_that_are_no_json_are_named(build: Build, name: str, content: bytes) -> None:
    run = build()
    (run / name).write_bytes(content)
    with pytest.raises(DiffcernError, match=name):
        write_report(run)


def test_a_specification_that_is_no_text(build: Build) -> None:
    run = build()
    (run / "spec.toml").write_bytes(b"name = '\xe9'")
    with pytest.raises(DiffcernError, match=r"spec\.toml, line 1: not UTF-8"):
        write_report(run)
    (run / "spec.toml").write_text("a folder that something else made")
    assert load(run).title == "digits"


def test_an_entry_described_twice(build: Build) -> None:
    run = build()
    (run / "entries.json").write_text(json.dumps([{"entry": "source"}] * 2))
    with pytest.raises(DiffcernError, match="describes an entry twice"):
        load(run)


def change(run: Path, **columns: Any) -> None:
    """Puts columns into the records, each a function of what was there."""
    file = run / "records" / "0.parquet"
    table = pq.read_table(file)
    for name, made in columns.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(made(table[name].to_pylist())))
    pq.write_table(table, file)


@pytest.mark.parametrize(
    ("column", "made", "message"),
    [
        ("target", lambda values: [None, *values[1:]], "column 'target' has no value in 1 of 600 rows"),
        ("prediction", lambda values: [None] * len(values), "'prediction' has no value in 600"),
        ("id", lambda values: [None, *values[1:]], "'id' has no value"),
        ("shift", lambda values: [None, *values[1:]], "'shift' has no value"),
        ("dataset", lambda values: [None, *values[1:]], "'dataset' has no value"),
        ("target", lambda values: [value == 0 for value in values], "'target' holds truth values, not numbers"),
        ("nfe_forward", lambda values: [True] * len(values), "'nfe_forward' holds truth values, not numbers"),
        ("severity", lambda values: [str(value) for value in values], "'severity' holds texts, not numbers"),
        ("id", lambda values: list(range(len(values))), "'id' holds numbers, not texts"),
        ("target", lambda values: [value + 0.5 for value in values], "0.parquet"),
        ("probabilities", lambda values: [0.5] * len(values), "'probabilities' holds numbers, not lists"),
        ("probabilities", lambda values: [["a"]] * len(values), "'probabilities' holds texts, not numbers"),
        ("probabilities", lambda values: [[None, 1.0], *values[1:]], "'probabilities' has no value in 1"),
        ("prediction", lambda values: [7, *values[1:]], "answers that no bench gives"),
        ("prediction", lambda values: [-1, *values[1:]], "answers that no bench gives"),
        ("target", lambda values: [-2, *values[1:]], "answers that no bench gives"),
        ("severity", lambda values: [-1, *values[1:]], "answers that no bench gives"),
    ],
)
def test_values_that_no_bench_writes(build: Build, column: str, made: Any, message: str) -> None:
    run = build()
    change(run, **{column: made})
    with pytest.raises(DiffcernError, match=message) as caught:
        write_report(run)
    assert "0.parquet" in str(caught.value)


def test_numbers_of_another_width_and_texts_that_repeat_are_the_same(build: Build) -> None:
    run = build()
    expected = summarise(run)
    table = pq.read_table(run / "records" / "0.parquet")
    wide = {"target": pa.int16(), "severity": pa.int8(), "nfe_forward": pa.float32(), "shift": pa.large_string()}
    for name, kind in wide.items():
        table = table.set_column(table.column_names.index(name), name, table[name].cast(kind))
    table = table.set_column(table.column_names.index("entry"), "entry", table["entry"].dictionary_encode())
    pq.write_table(table, run / "records" / "0.parquet")
    assert summarise(run) == expected


def test_one_sample_answered_twice(build: Build) -> None:
    run = build()
    expected = summarise(run)
    rows = read(run)
    write(run / "records" / "1.parquet", rows[:3])  # as a run that was killed between two writes may leave them
    assert summarise(run) == expected
    write(run / "records" / "1.parquet", [{**rows[0], "prediction": (rows[0]["prediction"] + 1) % 5}])
    with pytest.raises(DiffcernError, match=r"answer source, clean, 0, img-0000 twice, and differently"):
        summarise(run)


@pytest.mark.parametrize("picture", [b"", b"no picture", None])
def test_a_damaged_picture(build: Build, picture: bytes | None) -> None:
    run = build()
    rows = pq.read_table(run / "examples.parquet").to_pylist()
    broken = picture if picture is not None else rows[0]["image"][:60]
    write(run / "examples.parquet", [{**row, "image": broken} for row in rows])
    with pytest.raises(DiffcernError, match=r"a picture in examples\.parquet.* is damaged"):
        write_report(run)


def test_texts_that_are_no_utf_8(build: Build) -> None:
    run = build()
    table = pq.read_table(run / "records" / "0.parquet")
    content = pa.array([b"\xff" if k == 0 else value.encode() for k, value in enumerate(table["id"].to_pylist())])
    texts = pa.Array.from_buffers(pa.string(), len(content), content.buffers())
    table = table.set_column(table.column_names.index("id"), "id", texts)
    pq.write_table(table, run / "records" / "0.parquet", use_dictionary=False)
    with pytest.raises(DiffcernError, match=r"cannot read .*0\.parquet"):
        write_report(run)


def test_confidence_of_nothing(build: Build) -> None:
    """Lists may be empty or missing where a method has no probabilities."""
    run = build()
    change(run, probabilities=lambda values: [None, [], *values[2:]])
    cell = load(run).cells["source", "clean", 0]
    assert np.isnan(cell.confidence[:2]).all()


def test_records_of_maps_without_a_plan(build: Build) -> None:
    """They would be read as answers about images whose truth is not known."""
    run = build()
    table = pq.read_table(run / "records" / "0.parquet")
    statistics = pa.array([[1.0, 2.0, 3.0]] * len(table))
    pq.write_table(table.append_column("statistics", statistics), run / "records" / "0.parquet")
    with pytest.raises(DiffcernError, match=r"plan\.json does not say the task, and the records are of maps"):
        summarise(run)
    empty = pa.array([[]] * len(table), pa.list_(pa.float64()))
    pq.write_table(table.append_column("statistics", empty), run / "records" / "0.parquet")
    summarise(run)
