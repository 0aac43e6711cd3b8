"""The files of a run folder: their columns are what reports and users read, and a unit counts when it is whole."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diffcern.errors import DiffcernError
from diffcern.run import store
from diffcern.run.store import RunFolder, check_fingerprint
from diffcern.run.units import Done
from diffcern.types import Record, Timing

KEY = {"entry": "source", "shift": "noise", "severity": 3}


def record(id):
    return Record(
        **KEY, id=id, method="source", dataset="d", index=4, target=1, prediction=2, probabilities=[0.25, 0.75],
        nfe_forward=5, nfe_backward=6, loss_trace=[0.5], notes={"order": 1, "batch": 3}, statistics=[1.5],
    )  # fmt: skip


def timing(id):
    return Timing(**KEY, id=id, seconds=0.5, peak_memory_mb=7.0)


def unit_of(*ids, skipped=(), pictures=()):
    rows = [{**KEY, "id": id, "reason": f"{id} is empty"} for id in skipped]
    shown = [{**KEY, "id": id, "png": b"PNG"} for id in pictures]
    return Done([record(id) for id in ids], [timing(id) for id in ids], rows, shown)


def columns(schema):
    return {field.name: str(field.type) for field in schema}


def test_columns_are_what_the_report_reads():
    key = {"entry": "string", "shift": "string", "severity": "int32", "id": "string"}
    assert columns(store.RECORD_SCHEMA) == {
        "entry": "string", "method": "string", "dataset": "string", "shift": "string", "severity": "int32",
        "id": "string", "index": "int64", "target": "int64", "prediction": "int64",
        "probabilities": "list<item: float>", "nfe_forward": "int64", "nfe_backward": "int64",
        "loss_trace": "list<item: float>", "notes": "string", "statistics": "list<item: double>",
    }  # fmt: skip
    assert columns(store.TIMING_SCHEMA) == {**key, "seconds": "double", "peak_memory_mb": "double"}
    assert columns(store.SKIPPED_SCHEMA) == {**key, "reason": "string"}
    assert columns(store.PICTURE_SCHEMA) == {**key, "png": "binary"}
    answers = dict.fromkeys(("target", "prediction", "nfe_forward", "nfe_backward"), "int64")
    assert columns(store.NEEDED) == {**key, **answers}


def test_a_unit_is_read_as_it_was_written(tmp_path):
    run = RunFolder(tmp_path)
    run.write_unit("u", unit_of("a", "b", skipped="c", pictures="a"))
    rows = pq.read_table(tmp_path / "records" / "u.parquet").to_pylist()
    assert [row["id"] for row in rows] == ["a", "b"]
    assert rows[0] == {**vars(record("a")), "notes": '{"batch": 3, "order": 1}'}  # named numbers, in order
    assert pq.read_table(tmp_path / "timings" / "u.parquet").to_pylist() == [vars(timing("a")), vars(timing("b"))]
    assert pq.read_table(tmp_path / "answers" / "u.parquet").to_pylist() == [{**KEY, "id": "a", "png": b"PNG"}]
    assert run.skipped() == {"c": "c is empty"}
    run.write_unit("v", unit_of("d", skipped="e"))
    assert run.skipped() == {"c": "c is empty", "e": "e is empty"}
    run.write_unit("u", unit_of("a", "b", "c"))  # done again, and now readable
    assert run.skipped() == {"e": "e is empty"}


def test_a_unit_is_done_when_each_image_has_a_record_or_a_reason(tmp_path):
    RunFolder(tmp_path).write_unit("u", unit_of("a", "b", skipped="c"))
    for count, whole in ((2, False), (3, True), (4, False)):
        assert RunFolder(tmp_path).done("u", count) == whole
    assert not RunFolder(tmp_path).done("v", 0)
    RunFolder(tmp_path).write_unit("twice", unit_of("a", "a"))
    assert not RunFolder(tmp_path).done("twice", 2)
    RunFolder(tmp_path).write_unit("both", unit_of("a", skipped="a"))
    assert not RunFolder(tmp_path).done("both", 2)
    run = RunFolder(tmp_path)
    assert run.done("u", 3)
    (tmp_path / "records" / "u.parquet").unlink()
    assert run.done("u", 3)  # looked at once
    assert not RunFolder(tmp_path).done("u", 3)
    RunFolder(tmp_path).write_unit("w", unit_of("a"))
    (tmp_path / "timings" / "w.parquet").unlink()
    assert not RunFolder(tmp_path).done("w", 1)


def test_text_and_json_are_read_as_they_were_written(tmp_path):
    run = RunFolder(tmp_path / "new" / "run")
    run.write_json("plan.json", {"images": 3})
    assert (run.path / "plan.json").read_text() == '{\n "images": 3\n}\n'
    run.write_table("t.parquet", pa.table({"a": [1]}))
    assert pq.read_table(run.path / "t.parquet").to_pylist() == [{"a": 1}]
    assert not list(run.path.glob(".*"))


PRINTS = {"predictor": "1", "prior": "2", "images": "3", "options": "4"}


def test_each_part_of_a_fingerprint_is_named(tmp_path):
    check_fingerprint(tmp_path, PRINTS)  # a new folder
    (tmp_path / "fingerprint.json").write_text(json.dumps(PRINTS))
    check_fingerprint(tmp_path, PRINTS)
    for part, what in (
        ("predictor", "other weights or settings of the predictor:"),
        ("prior", "other weights or settings of the prior:"),
        ("images", "other images:"),
        ("options", "other defaults of the methods' options:"),
    ):
        with pytest.raises(DiffcernError, match=f"was made with {what} give another --out"):
            check_fingerprint(tmp_path, {**PRINTS, part: "9"})
        without = {name: value for name, value in PRINTS.items() if name != part}
        with pytest.raises(DiffcernError, match=f"was made with {what}"):
            check_fingerprint(tmp_path, without)
    with pytest.raises(DiffcernError, match="settings of the predictor and other images:"):
        check_fingerprint(tmp_path, {**PRINTS, "predictor": "9", "images": "9"})
