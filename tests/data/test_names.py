"""Names of very many images: in a file, all different."""

import pickle

import pytest

from diffcern.data import load_dataset, names
from diffcern.data.names import FEW, Names, unique
from diffcern.errors import DiffcernError

MANY = [f"frame-{n:06}-é" for n in range(FEW + 70_000)]  # two blocks and a half


@pytest.fixture(scope="module")
def many():
    return unique(iter(MANY), "here")


def test_many_are_a_file_and_read_like_a_list(many):
    assert isinstance(many, Names)
    assert len(many) == len(MANY)
    assert list(many) == MANY
    assert [many[place] for place in (0, 65_535, 65_536, -1)] == [MANY[place] for place in (0, 65_535, 65_536, -1)]
    assert many[65_530:65_540] == MANY[65_530:65_540]
    assert MANY[99_999] in many
    with pytest.raises(IndexError):
        many[len(MANY)]


def test_another_process_gets_its_own(many):
    assert list(pickle.loads(pickle.dumps(many))) == MANY


@pytest.mark.parametrize("count", [3, len(MANY)])
def test_one_that_occurs_twice_is_named(count):
    given = [*MANY[:count], MANY[1], MANY[1]]
    with pytest.raises(DiffcernError, match=r"here: ids must be unique, but 'frame-000001-é' occurs 3 times"):
        unique(given, "here")


def test_names_of_one_hash_are_not_the_same(many, monkeypatch):
    monkeypatch.setattr(names, "hash", lambda name: len(name), raising=False)
    assert len(unique(iter(MANY), "here")) == len(MANY)


def test_a_long_list_of_files_holds_no_names(tmp_path, monkeypatch):
    monkeypatch.setattr(names, "FEW", 3)
    (tmp_path / "list.txt").write_text("".join(f"{name}.png\tcat\r\n\n" for name in MANY[:5]))
    data = load_dataset(f"files:{tmp_path / 'list.txt'}")
    assert isinstance(data.ids, Names)
    assert list(data.ids) == [f"{name}.png" for name in MANY[:5]]
    assert (data.class_names, list(data.targets)) == (("cat",), [0] * 5)
