"""The table of `benchmarks/answers.py`, from files whose accuracies are known."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "answers.py"
if not SCRIPT.is_file():
    pytest.skip("the benchmarks are not here", allow_module_level=True)


def write(path: Path, after: int, n: int = 40, before: int = 10, question: str = "q?") -> None:
    """Rows of which `before` are right before, `after` after, and half of those from the purified image alone."""
    path.parent.mkdir(exist_ok=True)
    rows = [
        {
            "id": f"{k:02d}",
            "kind": "side" if k % 2 else "colour",
            "question": question,
            "truth": "a",
            "before": "a" if k < before else "b",
            "after": "a" if k < after else "b",
            "purified": "a" if k < after // 2 else "b",
            "error": None,
        }
        for k in range(n)
    ]
    failed = {**rows[0], "id": "bad", "error": "too long"}
    pq.write_table(pa.Table.from_pylist([*rows, failed]), path)


def report(monkeypatch, capsys, *folders: Path | str) -> list[str]:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, folders)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    return capsys.readouterr().out.splitlines()


def test_every_number_is_that_of_the_files(tmp_path, monkeypatch, capsys):
    for method, extra in (("dda", 4), ("sda", 12)):
        for shift, after in (("clean", 40), ("fog", 10), ("shot_noise", 20)):
            write(tmp_path / method / f"{shift}.parquet", min(40, after + extra))
    lines = report(monkeypatch, capsys, tmp_path / "dda", tmp_path / "sda")
    cells = {line.split(" | ")[0].strip("| "): line.split(" | ")[1:] for line in lines if line.startswith("| ")}
    assert cells["shift"] == ["source", "dda", "dda-alone", "sda", "sda-alone |"]
    assert [cell.split()[0] for cell in cells["fog"]] == ["25.0", "35.0", "17.5", "55.0", "27.5"]
    assert [cell.split()[0] for cell in cells["mean"]] == ["25.0", "47.5", "23.8", "67.5", "33.8"]  # without clean
    assert [line.split()[1] for line in lines if line.startswith("| ")][1:4] == ["---", "clean", "shot_noise"]
    assert cells["colour"][0] == cells["side"][0] == "20"
    assert "dda - source: +22.5 points [" in lines[-3]
    assert "sda - source: +42.5 points [" in lines[-2]
    assert "sda - dda: +20.0 points [" in lines[-1]
    lines = report(monkeypatch, capsys, tmp_path / "dda", tmp_path / "sda", "--kinds", "side")
    assert "20 questions x 2 shifts" in "".join(lines)
    with pytest.raises(SystemExit, match="there are colour, side"):
        report(monkeypatch, capsys, tmp_path / "dda", "--kinds", "shape")


def test_files_that_cannot_be_compared_are_refused(tmp_path, monkeypatch, capsys):
    write(tmp_path / "dda" / "fog.parquet", 10)
    for change, message in (
        ({"n": 30}, "another source"),
        ({"before": 12}, "another source"),
        ({"question": "r?"}, "other questions"),
    ):
        write(tmp_path / "sda" / "fog.parquet", 10, **change)
        with pytest.raises(SystemExit, match=f"fog.parquet is of {message} than the first folder's"):
            report(monkeypatch, capsys, tmp_path / "dda", tmp_path / "sda")
    write(tmp_path / "sda" / "snow.parquet", 10)
    with pytest.raises(SystemExit, match="for the same shifts"):
        report(monkeypatch, capsys, tmp_path / "dda", tmp_path / "sda")
    with pytest.raises(SystemExit, match="for the same shifts"):
        report(monkeypatch, capsys, tmp_path)
    with pytest.raises(SystemExit, match="the folders name the methods"):
        report(monkeypatch, capsys, tmp_path / "dda", tmp_path / "dda")
    table = pq.read_table(tmp_path / "dda" / "fog.parquet")
    pq.write_table(table.drop_columns(["after", "purified"]), tmp_path / "dda" / "fog.parquet")
    with pytest.raises(SystemExit, match="make it with --prior"):
        report(monkeypatch, capsys, tmp_path / "dda")
