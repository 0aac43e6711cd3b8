"""Images in WebDataset tars and in object stores: the same as from a folder, and errors that say what to do."""

import io
import pickle
import sys

import fsspec
import fsspec.implementations.memory
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from shards import shard

from diffcern.data import encode_png, load_dataset
from diffcern.data.places import files_of
from diffcern.errors import DiffcernError, UsageError
from diffcern.rng import generator


def picture(number: int) -> bytes:
    return encode_png(torch.rand(3, 8, 8, generator=generator(0, "picture", number)))


def members(*numbers):
    return [(f"a/{n:03}.{end}", what) for n in numbers for end, what in (("png", picture(n)), ("cls", b"%d" % (n % 3)))]


@pytest.fixture(autouse=True)
def _kept_apart(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def shards(tmp_path):
    for number, some in enumerate(((0, 1, 2), (3, 4))):
        extra = [("a/000.json", b"{}"), ("a/000.seg.png", picture(9))] if number == 0 else []
        (tmp_path / f"train-{number:03}.tar").write_bytes(shard([*members(*some), *extra]))
    return tmp_path


@pytest.mark.parametrize("form", ["train-{000..001}.tar", "train-*.tar", ""])
def test_shards_in_any_order(shards, form):
    data = load_dataset(f"webdataset:{shards / form}")
    assert list(data.ids) == [f"train-{k // 3:03}/a/{k:03}" for k in range(5)]
    assert list(data.targets) == [0, 1, 2, 0, 1]
    assert data.class_names == ("0", "1", "2")
    for row in (4, 0, 3, -1):
        sample = data[row]
        assert (sample.id, sample.target) == (data.ids[row], data.targets[row])
        assert encode_png(sample.image) == picture(range(5)[row])
    assert data.content(2) == picture(2)
    elsewhere = pickle.loads(pickle.dumps(data))
    assert torch.equal(elsewhere[1].image, data[1].image)
    with pytest.raises(IndexError):
        data[5]


def test_one_shard_and_names_of_classes(tmp_path):
    (tmp_path / "x.tar").write_bytes(shard([("0.png", picture(0)), ("0.cls", b"cat"), ("1.png", picture(1))]))
    data = load_dataset(f"webdataset:{tmp_path / 'x.tar'}", class_names=("dog", "cat"))
    assert (list(data.ids), list(data.targets)) == (["0", "1"], [1, -1])


def test_names_with_signs_of_patterns_and_hidden_files(tmp_path):
    folder = tmp_path / "set[1]{0..2}"
    folder.mkdir()
    (folder / "x.tar").write_bytes(shard(members(0, 1)))
    (folder / "._x.tar").write_bytes(b"what a Mac leaves beside it")
    assert len(load_dataset(f"webdataset:{folder}")) == 2
    assert len(load_dataset(f"webdataset:{folder / 'x.tar'}")) == 2


def test_an_object_store():
    store = fsspec.filesystem("memory")
    store.pipe("/shop/train-000.tar", shard(members(0, 1)))
    store.pipe("/shop/train-001.tar", shard(members(2)))
    for form in ("memory://shop/train-{000..001}.tar", "memory://shop/*.tar", "memory://shop"):
        data = load_dataset(f"webdataset:{form}")
        assert [id[-3:] for id in data.ids] == ["000", "001", "002"]
        assert encode_png(data[2].image) == picture(2)
    table = io.BytesIO()
    rows = [{"image": {"bytes": picture(k), "path": None}, "label": k, "id": f"r{k}"} for k in range(3)]
    pq.write_table(pa.Table.from_pylist(rows), table)
    store.pipe("/shop/table.parquet", table.getvalue())
    for name in ("parquet:memory://shop/table.parquet", "memory://shop/table.parquet"):
        data = load_dataset(name)
        assert list(data.ids) == ["r0", "r1", "r2"]
        assert encode_png(data[1].image) == picture(1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no tar at all" * 100, "damaged, or no tar file"),
        (shard(members(0, 1))[:700], "x.tar"),
        (shard([("a.png", picture(0)), ("a.jpg", picture(1))]), "two images called a: which one"),
        (shard([("a.txt", b"words")]), "holds no images"),
    ],
)
def test_shards_that_cannot_be_used(tmp_path, content, message):
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(DiffcernError, match=message):
        load_dataset(f"webdataset:{tmp_path / 'x.tar'}")


def test_a_shard_that_changes_later(shards):
    data = load_dataset(f"webdataset:{shards}")
    whole = (shards / "train-001.tar").read_bytes()
    (shards / "train-001.tar").write_bytes(whole[:600])
    with pytest.raises(DiffcernError, match=r"train-001\.tar ends before train-001/a/00"):
        data[3]
    (shards / "train-000.tar").unlink()
    with pytest.raises(DiffcernError, match="no such file"):
        data[0]


def test_places_that_cannot_be_reached(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)  # as where it is not installed
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)  # of another test
    with pytest.raises(DiffcernError, match=r"no \.tar file at"):
        load_dataset(f"webdataset:{tmp_path / 'none-*.tar'}")
    with pytest.raises(DiffcernError, match=r"no \.tar file at memory://nowhere"):
        load_dataset("webdataset:memory://nowhere/x.tar")
    with pytest.raises(UsageError, match=r"cannot open warp://x\.tar: .*warp"):
        load_dataset("webdataset:warp://x.tar")
    with pytest.raises(UsageError, match=r"cannot open s3://bucket/x\.tar: .*s3fs"):
        load_dataset("webdataset:s3://bucket/x.tar")
    with pytest.raises(UsageError, match=r"cannot open s3://bucket/x\.parquet: .*s3fs"):
        load_dataset("s3://bucket/x.parquet")


def test_patterns(tmp_path):
    for number in (0, 1, 10):
        (tmp_path / f"s-{number:02}.tar").touch()
    assert [name[-6:] for name in files_of(str(tmp_path / "s-{00..01}.tar"), ".tar")] == ["00.tar", "01.tar"]
    assert len(files_of(str(tmp_path), ".tar")) == 3


class Refusing(fsspec.AbstractFileSystem):
    protocol = "refusing"

    def isdir(self, path):
        raise PermissionError("403: forbidden")


def test_credentials_that_are_refused():
    fsspec.register_implementation("refusing", Refusing, clobber=True)
    with pytest.raises(DiffcernError, match=r"refusing://x\.tar is refused to you: 403: forbidden; check your cred"):
        load_dataset("webdataset:refusing://x.tar")


def test_a_shard_that_is_missing_among_numbered_ones(shards):
    with pytest.raises(DiffcernError, match=r"train-002\.tar, which is one of .*all of them are wanted"):
        load_dataset(f"webdataset:{shards / 'train-{000..002}.tar'}")


def test_names_with_dots(tmp_path):
    """A companion is no image of its own; a name with a dot is one."""
    content = [("a.png", picture(0)), ("a.seg.png", picture(9)), ("a.CLS", b"1"), ("img.001.png", picture(1))]
    content += [("img.001.cls", b"0"), ("img.cls", b"7")]
    (tmp_path / "x.tar").write_bytes(shard([*content, ("v1.0/b.jpg.png", picture(2))]))
    data = load_dataset(f"webdataset:{tmp_path / 'x.tar'}")
    assert (list(data.ids), list(data.targets)) == (["a", "img.001", "v1.0/b.jpg"], [1, 0, -1])


@pytest.mark.parametrize(("labels", "targets"), [((b"cat", b"1"), [1, 0]), ((b"--5", b"2"), [0, 1])])
def test_labels_that_are_not_all_numbers(tmp_path, labels, targets):
    rows = [
        (f"{n}.{end}", what) for n, label in enumerate(labels) for end, what in (("png", picture(n)), ("cls", label))
    ]
    (tmp_path / "x.tar").write_bytes(shard(rows))
    assert list(load_dataset(f"webdataset:{tmp_path / 'x.tar'}").targets) == targets


@pytest.fixture
def fetched(monkeypatch):
    """How many bytes are fetched from memory://: of a file that is opened all, as some stores' read-ahead does."""
    system, counts = fsspec.implementations.memory.MemoryFileSystem, [0]
    opened = system._open

    def open_(self, path, mode="rb", **given):
        counts[0] += self.size(path) if mode == "rb" else 0
        return opened(self, path, mode, **given)

    def cat_file(self, path, start=None, end=None):
        found = self.store[self._strip_protocol(path)].getvalue()[start:end]
        counts[0] += len(found)
        return found

    monkeypatch.setattr(system, "_open", open_)
    monkeypatch.setattr(system, "cat_file", cat_file)

    def since():
        found, counts[0] = counts[0], 0
        return found

    return since


def test_a_shard_of_a_store_is_fetched_whole_once(fetched, tmp_path):
    """A command that goes on asks for the images that are left, and for nothing else; one that has changed is read."""
    store, name = fsspec.filesystem("memory"), "webdataset:memory://counted/a.tar"
    store.pipe("/counted/a.tar", shard(members(0, 1, 2)))
    first = load_dataset(name)
    assert fetched() == store.size("/counted/a.tar")
    again = load_dataset(name)
    assert fetched() == 0
    assert (list(again.ids), list(again.targets)) == (list(first.ids), list(first.targets))
    assert again.content(1) == picture(1)
    assert fetched() == len(picture(1))
    store.pipe("/counted/a.tar", shard(members(3, 4)))
    assert list(load_dataset(name).ids) == ["a/003", "a/004"]
    (kept,) = [path for path in (tmp_path / "cache" / "diffcern" / "shards").iterdir() if b"a/003" in path.read_bytes()]
    kept.write_bytes(b"[[")
    assert len(load_dataset(name)) == 2
