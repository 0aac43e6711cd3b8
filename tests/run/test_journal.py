import pyarrow.parquet as pq
import pytest

from diffcern.errors import DiffcernError, UsageError
from diffcern.run.journal import Journal


def test_rows_survive_a_torn_line(tmp_path):
    first = Journal(tmp_path / "r.parquet", {"seed": 0})
    for i in range(5):
        first.add({"id": f"{i}", "error": None})
    with first.path.open("a") as file:
        file.write('{"id": "5", "er')
    del first
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
    assert len(Journal(tmp_path / "r.csv", {"seed": 0}, overwrite=True).rows) == 1
    assert Journal(tmp_path / "r.csv", {"seed": 1}, overwrite=True).rows == []
    assert Journal(tmp_path / "r.csv", {"seed": 1}).rows == []


def test_one_command_at_a_time(tmp_path):
    first = Journal(tmp_path / "r.csv", {"seed": 0})
    first.add({"id": "a"})
    for overwrite in (False, True):
        with pytest.raises(DiffcernError, match=r"another command is writing .*r\.csv"):
            Journal(tmp_path / "r.csv", {"seed": 0}, overwrite=overwrite)
    first.restart()  # is still locked
    with pytest.raises(DiffcernError, match="another command"):
        Journal(tmp_path / "r.csv", {"seed": 0})
    first.finish()
    assert (tmp_path / "r.csv").is_file()
    Journal(tmp_path / "r.csv", {"seed": 0}, overwrite=True).finish()
    assert [path.name for path in tmp_path.iterdir()] == ["r.csv"]


def test_suffix_and_folder_are_checked_first(tmp_path):
    with pytest.raises(UsageError, match=r"\.parquet"):
        Journal(tmp_path / "r.xlsx", {})
    (tmp_path / "file").write_text("")
    with pytest.raises(DiffcernError, match=r"cannot write .*file is a file"):
        Journal(tmp_path / "file" / "r.csv", {})
    (tmp_path / "r.csv").mkdir()
    with pytest.raises(DiffcernError, match="is a folder"):
        Journal(tmp_path / "r.csv", {}, overwrite=True)
