"""A lock that locks, whoever takes its name away in between."""

import fcntl

import pytest

from diffcern import files
from diffcern.errors import DiffcernError
from diffcern.files import writing


def test_one_at_a_time(tmp_path):
    with writing(tmp_path / "out"), pytest.raises(DiffcernError, match="another command is writing"):  # noqa: SIM117
        with writing(tmp_path / "out"):
            pass
    assert not (tmp_path / "out").exists()  # it was made, and nothing was put into it


def test_a_lock_that_was_taken_away(tmp_path, monkeypatch):
    """The first to lock it ends just now: its file is gone, and another one is locked."""
    taken, lock = [], files.lock

    def late(file):
        if not taken:
            taken.append((tmp_path / ".lock").unlink())
        lock(file)

    monkeypatch.setattr(files, "lock", late)
    with writing(tmp_path), (tmp_path / ".lock").open("a") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
