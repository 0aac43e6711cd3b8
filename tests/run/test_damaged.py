"""A run folder whose files are damaged: what can be made again is, and what cannot is named before work begins."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from diffcern.errors import DiffcernError
from diffcern.report import summarise, write_report
from diffcern.run.evaluate import evaluate
from diffcern.run.spec import parse_spec
from diffcern.run.store import RECORD_SCHEMA, RunFolder

CPU = torch.device("cpu")
UNIT = "source--noise-3--000000"


@pytest.fixture
def spec(table):
    entries = {"source": table["entries"]["source"]}
    return parse_spec({**table, "entries": entries, "data": {**table["data"], "count": 24}})


@pytest.fixture
def folder(spec, tmp_path) -> Path:
    evaluate(spec, tmp_path / "run", device=CPU)
    return tmp_path / "run"


def again(spec, folder: Path) -> list[str]:
    """The units that are done when the bench is run again."""
    done: list[str] = []
    complete, _ = evaluate(spec, folder, device=CPU, progress=lambda _, total, what: done.append(what))
    assert complete
    return done[:-1]


def without_checksum(folder: Path) -> None:
    """As an older version left it."""
    for file in (folder / "timings").glob("*.parquet"):
        pq.write_table(pq.read_table(file).replace_schema_metadata(None), file)


def damaged(table: pa.Table, how: str) -> pa.Table | None:
    if how == "rows missing":
        return table.slice(1)
    if how == "a row twice":
        return pa.concat_tables([table.slice(1), table.slice(1, 1)])
    if how == "null values":
        column = pa.array([None, *table["prediction"].to_pylist()[1:]], pa.int64())
        return table.set_column(table.column_names.index("prediction"), "prediction", column)
    if how == "truth values":
        column = pa.array([True] * len(table))
        return table.set_column(table.column_names.index("target"), "target", column)
    if how == "texts":
        column = pa.array(["1"] * len(table))
        return table.set_column(table.column_names.index("target"), "target", column)
    if how == "no column":
        return table.drop_columns(["target"])
    return None


HOW = ["rows missing", "a row twice", "null values", "truth values", "texts", "no column", "truncated", "empty"]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("older", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_damaged_records_do_not_count_as_done(spec, folder, how, older):
    file = folder / "records" / f"{UNIT}.parquet"
    whole = {path.name: path.read_bytes() for path in (folder / "records").iterdir()}
    assert again(spec, folder) == []
    if older:
        without_checksum(folder)
        assert again(spec, folder) == []
    table = damaged(pq.read_table(file), how)
    if table is None:
        file.write_bytes(file.read_bytes()[:200] if how == "truncated" else b"")
    else:
        pq.write_table(table, file)
    if not (older and how in ("rows missing", "a row twice")):  # without checksums such a folder is one half done
        with pytest.raises(DiffcernError, match=rf"{UNIT}\.parquet.*the same `diffcern bench`"):
            summarise(folder)
    assert again(spec, folder) == ["source on noise 3"]
    assert {path.name: path.read_bytes() for path in (folder / "records").iterdir()} == whole
    assert all(row["complete"] for row in summarise(folder))


def test_an_edited_answer_is_noticed(spec, folder):
    file = folder / "records" / f"{UNIT}.parquet"
    table, whole = pq.read_table(file), file.read_bytes()
    answers = [9 - answer for answer in table["prediction"].to_pylist()]
    pq.write_table(table.set_column(table.column_names.index("prediction"), "prediction", pa.array(answers)), file)
    with pytest.raises(DiffcernError, match="was changed or damaged since it was written"):
        write_report(folder)
    assert again(spec, folder) == ["source on noise 3"]
    assert file.read_bytes() == whole


def test_records_are_the_bytes_that_they_were(folder):
    """The checksum lies beside them, in the timings; they are written as before."""
    for file in (folder / "records").glob("*.parquet"):
        pq.write_table(pa.Table.from_pylist(pq.read_table(file).to_pylist(), schema=RECORD_SCHEMA), folder / "again")
        assert (folder / "again").read_bytes() == file.read_bytes()
        assert pq.read_schema(file).metadata is None
        assert set(pq.read_schema(folder / "timings" / file.name).metadata) == {b"records"}


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"images": 3}', b"\xff\xfe\x00", b"null"])
def test_a_damaged_fingerprint_is_named(spec, folder, content):
    (folder / "fingerprint.json").write_bytes(content)
    with pytest.raises(DiffcernError, match=r"fingerprint\.json.*restore it, give another --out, or delete"):
        evaluate(spec, folder, device=CPU)


@pytest.mark.parametrize("content", [b"\xff\x00x", b"name = ", b"\0\0\0", b"[" * 100_000])
def test_a_damaged_specification_is_named(spec, folder, content):
    (folder / "spec.toml").write_bytes(content)
    with pytest.raises(DiffcernError, match=r"spec\.toml.* does not say what was run; restore the file"):
        evaluate(spec, folder, device=CPU)
    (folder / "spec.toml").write_text(spec.to_toml().replace("seed = 0", "seed = 1"))
    with pytest.raises(DiffcernError, match="holds a run of another specification"):
        evaluate(spec, folder, device=CPU)


def test_what_a_bench_only_writes_is_written_again(spec, folder):
    for name in ("plan.json", "entries.json", "classes.json"):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(b"\xff{")
        with pytest.raises(DiffcernError, match=rf"{name}.*not UTF-8"):
            summarise(folder)
        assert again(spec, folder) == []
        assert (folder / name).read_bytes() == whole


def test_reasons_of_skipped_images_belong_to_the_unit(spec, folder):
    run = RunFolder(folder)
    key = {"entry": "source", "shift": "noise", "severity": 3}
    table = pq.read_table(folder / "records" / f"{UNIT}.parquet")
    first = table["id"][0].as_py()
    skipped = folder / "skipped" / f"{UNIT}.parquet"
    without_checksum(folder)
    pq.write_table(table.slice(1), folder / "records" / f"{UNIT}.parquet")
    assert not run.done(UNIT, 20)
    pq.write_table(pa.Table.from_pylist([{**key, "id": first, "reason": "empty"}]), skipped)
    assert run.done(UNIT, 20)
    skipped.write_bytes(b"PAR1")
    assert run.done(UNIT, 20)  # what was looked at once
    assert not RunFolder(folder).done(UNIT, 20)
    with pytest.raises(DiffcernError, match=r"skipped/.*parquet.*delete it"):
        run.skipped()
    assert again(spec, folder) == ["source on noise 3"]  # and no image is skipped any more
    assert not skipped.exists()


def test_records_without_their_timings_are_made_again(spec, folder):
    """The checksum of records lies in their timings: without them nobody can tell whether they were edited."""
    file = folder / "records" / f"{UNIT}.parquet"
    table, whole = pq.read_table(file), file.read_bytes()
    answers = [9 - answer for answer in table["prediction"].to_pylist()]
    pq.write_table(table.set_column(table.column_names.index("prediction"), "prediction", pa.array(answers)), file)
    (folder / "timings" / file.name).unlink()
    assert again(spec, folder) == ["source on noise 3"]
    assert file.read_bytes() == whole
