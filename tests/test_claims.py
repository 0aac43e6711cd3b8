"""What keeps work from going on is named: the setting, what it was and what it is."""

from pathlib import Path

import pytest

from diffcern.claims import changed, listed
from diffcern.errors import DiffcernError
from diffcern.run.journal import Journal
from diffcern.run.purify import check_settings

BEFORE = {
    "method": "dda",
    "options": {"steps": 150, "view": {"kind": "centre"}},
    "labels": ("a", "b"),
    "gone": 1,
    "none": None,
}
NOW = {"method": "dda", "options": {"steps": 5, "view": {"kind": "whole"}}, "labels": ["a", "b"], "path": Path("x")}


def test_changes_by_their_names():
    assert changed(BEFORE, BEFORE) == []
    assert changed(BEFORE, NOW) == [
        "gone was 1, is gone",
        "options.steps was 150, is 5",
        "options.view.kind was 'centre', is 'whole'",
        "path is new: 'x'",
    ]
    assert changed({"options": {}}, {"options": {"a": 1}}) == ["options was {}, is gone", "options.a is new: 1"]


def test_long_lists_are_abridged():
    many = changed({}, {f"k{k}": "x" * 100 for k in range(9)})
    assert listed(many).endswith(", and 3 more")
    assert len(many[0]) < 90


def test_a_journal_and_a_purified_folder_name_what_changed(tmp_path):
    first = Journal(tmp_path / "r.json", {"seed": 0, "options": {"steps": 150}})
    first.add({"id": "a", "error": None})
    del first
    with pytest.raises(DiffcernError, match=r"begun with other settings \(options\.steps was 150, is 5\): give --over"):
        Journal(tmp_path / "r.json", {"seed": 0, "options": {"steps": 5}})
    check_settings(tmp_path / "pure", {"seed": 0})
    check_settings(tmp_path / "pure", {"seed": 0})
    with pytest.raises(DiffcernError, match=r"purified otherwise \(.*purify\.json: seed was 0, is 1\)"):
        check_settings(tmp_path / "pure", {"seed": 1})
