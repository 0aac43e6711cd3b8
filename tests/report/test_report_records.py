"""Reading run folders: what is ignored, what is optional and what is an error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from diffcern.errors import DiffcernError
from diffcern.report.records import load

from .conftest import Build, read, write


def test_missing_folder_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(DiffcernError, match=r"no run folder .*nowhere.*diffcern bench"):
        load(tmp_path / "nowhere")


def test_no_records_yet_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(DiffcernError, match=r"no records.*diffcern bench"):
        load(tmp_path)


def test_records_without_rows_are_an_error(build: Build) -> None:
    run = build()
    table = pq.read_table(run / "records" / "0.parquet")
    pq.write_table(table.slice(0, 0), run / "records" / "0.parquet")
    with pytest.raises(DiffcernError, match="hold no rows"):
        load(run)


@pytest.mark.parametrize("folder", ["records", "timings"])
def test_truncated_file_is_named(build: Build, folder: str) -> None:
    run = build()
    whole = (run / folder / "0.parquet").read_bytes()
    (run / folder / "1.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DiffcernError, match=rf"cannot read .*{folder}/1\.parquet.*truncated"):
        load(run)


def test_missing_column_is_named(build: Build) -> None:
    run = build()
    table = pq.read_table(run / "records" / "0.parquet")
    pq.write_table(table.drop_columns(["target"]), run / "records" / "0.parquet")
    with pytest.raises(DiffcernError, match=r"0\.parquet.*target"):
        load(run)


def test_temporary_files_are_ignored(build: Build) -> None:
    run = build()
    before = load(run).cells.keys()
    for name in (".1.parquet", "_1.parquet", "1.tmp.parquet", "1.parquet.tmp"):
        (run / "records" / name).write_bytes(b"half a file")
    assert load(run).cells.keys() == before


def test_descriptions_are_optional(build: Build) -> None:
    run = build()
    for name in ("entries.json", "classes.json", "spec.toml"):
        (run / name).unlink()
    loaded = load(run)
    assert {(e.name, e.method) for e in loaded.entries} == {(n, n) for n in ("source", "tent", "diffusion-tta")}
    assert loaded.classes == []


def test_entries_keep_the_specifications_order_and_shifts_the_papers(build: Build) -> None:
    loaded = load(build(shifts=("weird", "contrast", "gaussian_noise")))
    assert [e.name for e in loaded.entries] == ["source", "tent", "diffusion-tta"]
    assert [s for s, _ in loaded.conditions] == ["clean", "gaussian_noise", "contrast", "weird"]


def test_lists_become_arrays(build: Build) -> None:
    run = build(entries=[{"entry": "source", "method": "source"}], shifts=(), n=3)
    records = read(run)
    traces = [[3.0, 2.0, 1.0], [], [5.0]]
    for row, trace in zip(records, traces, strict=True):
        row["loss_trace"] = trace
    records[1]["probabilities"] = []
    write(run / "records" / "0.parquet", records)
    (cell,) = load(run).cells.values()
    nan = np.nan
    np.testing.assert_array_equal(cell.traces, [[3, 2, 1], [nan, nan, nan], [5, nan, nan]])
    top = [max(records[0]["probabilities"]), nan, max(records[2]["probabilities"])]
    np.testing.assert_array_equal(cell.confidence, top)
