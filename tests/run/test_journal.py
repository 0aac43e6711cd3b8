import pyarrow.parquet as pq
import pytest

from diffcern.errors import DiffcernError, UsageError
from diffcern.run import journal
from diffcern.run.journal import Journal


def test_rows_survive_a_torn_line_and_a_failed_reopening(tmp_path, monkeypatch):
    first = Journal(tmp_path / "r.parquet", {"seed": 0})
    for i in range(5):
        first.add({"id": f"{i}", "error": None})
    with first.path.open("a") as file:
        file.write('{"id": "5", "er')
    monkeypatch.setattr(journal, "atomically", lambda path, write: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(DiffcernError, match="No space left"):
        Journal(tmp_path / "r.parquet", {"seed": 0})
    monkeypatch.undo()
    again = Journal(tmp_path / "r.parquet", {"seed": 0})
    assert [row["id"] for row in again.rows] == list("01234")
    again.add({"id": "10", "error": "x", "extra": 1})
    again.finish()
    assert len(pq.read_table(tmp_path / "r.parquet")) == 6
    assert not again.path.exists()


def test_other_settings_are_refused(tmp_path):
    Journal(tmp_path / "r.csv", {"seed": 0}).add({"id": "a"})
    with pytest.raises(DiffcernError, match="other settings"):
        Journal(tmp_path / "r.csv", {"seed": 1})


def test_suffix_and_folder_are_checked_first(tmp_path):
    with pytest.raises(UsageError, match=r"\.parquet"):
        Journal(tmp_path / "r.xlsx", {})
    (tmp_path / "file").write_text("")
    with pytest.raises(DiffcernError, match="cannot write"):
        Journal(tmp_path / "file" / "r.csv", {})
