"""A table in parts in an object store: as in a folder, whatever was killed or did not answer on the way."""

import json
import sys

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diffcern import jobs
from diffcern.data import encode_png, load_dataset
from diffcern.errors import DiffcernError, UsageError
from diffcern.jobs.calls import bench, purify
from diffcern.run import parts
from diffcern.run.journal import Journal
from diffcern.run.manifest import NAME as MANIFEST
from diffcern.run.manifest import Manifest
from diffcern.run.storage import LocalFolder, ObjectStore, storage_of, working_folders
from run import numbered
from run.numbered import IDS, filled, row

ROWS = "memory://shop/rows"
PARTS = [f"part-{number:06}.parquet" for number in range(3)]


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "PART", 10)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = fsspec.filesystem("memory")
    store.store.clear()
    yield store
    store.store.clear()


def opened(out=ROWS, **how):
    return numbered.opened(out, **how)


def files(store):
    return {path.removeprefix("/shop/rows/"): file.getvalue() for path, file in store.store.items()}


@pytest.fixture
def whole(tmp_path):
    """The files that the same rows come to in a folder."""
    table = filled(opened(tmp_path / "whole"))
    table.finish()
    table.close()
    return {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}


def failing(*given, **how):
    raise KeyboardInterrupt


def test_the_same_files_as_in_a_folder_and_nothing_stays_here(store, whole):
    table = filled(opened())
    rows = table.finish()
    assert (len(rows), rows.skipped, [found["value"] for found in rows]) == (25, 1, list(range(25)))
    assert (rows[12]["id"], rows[-1]["id"]) == ("012", "024")
    table.close()
    assert files(store) == whole
    assert not any(working_folders().iterdir())
    assert opened().todo() == []


@pytest.mark.parametrize("order", [range(25), [24, 3, 11, *range(12, 24), 0, *range(4, 11), 1, 2]])
def test_the_same_files_after_any_interruption(store, whole, order):
    """Rows come in any order, as from workers; after each the command may be killed, and an upload be torn."""
    for place in order:
        table = opened()
        assert place in {left for stretch in table.todo() for left in stretch}
        table.add(row(place))
        del table
        if "part-000002.parquet" not in files(store):
            store.pipe("/shop/rows/part-000002.parquet", whole["part-000002.parquet"][:50])
    table = opened()
    assert (table.done, table.todo()) == (25, [])
    table.finish()
    assert files(store) == whole


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("step", ["the upload", "the line", "the journal"])
def test_killed_while_a_part_ends(store, whole, monkeypatch, tmp_path, step, elsewhere):
    """On the same machine no row is lost; on another one the part on the way is made again."""

    def torn(system, here, there, **how):
        put(system, here, there)
        if there.endswith(".parquet"):
            system.pipe(there, whole["part-000000.parquet"][:50])
            raise KeyboardInterrupt

    put = type(store).put_file
    table = filled(opened(), range(9))
    table.add(row(12))
    broken = {"the upload": (type(store), "put_file", torn), "the line": (Manifest, "write", failing)}
    with monkeypatch.context() as killed:
        killed.setattr(*broken.get(step, (Journal, "remove", failing)))
        with pytest.raises(KeyboardInterrupt):
            table.add(row(9))
    del table
    if elsewhere:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    again = opened()
    assert again.done == (11 if not elsewhere else 10 if step == "the journal" else 0)
    filled(again).finish()
    again.close()
    assert files(store) == whole
    assert not any(working_folders().iterdir())


def test_a_store_that_fails_once_loses_nothing(store, whole, monkeypatch):
    table = filled(opened(), range(9))
    with monkeypatch.context() as broken:
        broken.setattr(type(store), "put_file", lambda *given, **how: (_ for _ in ()).throw(TimeoutError("no route")))
        with pytest.raises(DiffcernError, match=r"cannot write memory://shop/rows/part-000000\.parquet: .*no route"):
            table.add(row(9))
        assert "10 rows are kept in memory://shop/rows" in table.kept
        assert str(working_folders()) in table.kept
    table.close()
    again = opened()
    assert again.done == 10
    assert [len(stretch) for stretch in again.todo()] == [0, 10, 5]
    filled(again).finish()
    assert files(store) == whole
    monkeypatch.setattr(type(store), "ls", lambda *given, **how: (_ for _ in ()).throw(TimeoutError("no route")))
    with pytest.raises(DiffcernError, match=r"cannot read memory://shop/rows: .*no route; run again later"):
        opened()


def test_what_is_refused(store):
    first = filled(opened(), range(12))
    with pytest.raises(DiffcernError, match="another command is writing memory://shop/rows: wait"):
        opened("memory://shop/rows/")
    del first
    for ids, settings in ((IDS[:-1], {"seed": 0}), (IDS, {"seed": 1})):
        with pytest.raises(DiffcernError, match=r"memory.*other settings \((rows was 25, is 24|seed was 0, is 1)\)"):
            opened(ids=ids, settings=settings)
    with pytest.raises(DiffcernError, match="is about what has changed since: delete it"):
        opened(ids=["other", *IDS[1:]])
    assert opened(settings={"seed": 1}, overwrite=True).done == 0
    assert list(files(store)) == [MANIFEST]
    store.pipe("/mine/photo.png", b"photo")
    with pytest.raises(DiffcernError, match="memory://mine holds other files"):
        opened("memory://mine")
    store.pipe("/file", b"content")
    with pytest.raises(DiffcernError, match="memory://file is a file: give another --out"):
        opened("memory://file")


def test_parts_that_were_tampered_with(store, whole):
    table = filled(opened())
    table.finish()
    table.close()
    store.pipe(f"/shop/rows/{PARTS[1]}", whole[PARTS[1]][:50])
    with pytest.raises(DiffcernError, match=r"memory:.*/part-000001\.parquet is not as it was written: delete it"):
        opened()
    store.pipe(f"/shop/rows/{PARTS[1]}", bytes(len(whole[PARTS[1]])))
    with pytest.raises(DiffcernError, match=r"cannot read memory://shop/rows/part-000001\.parquet: .*delete it"):
        opened()
    store.rm(f"/shop/rows/{PARTS[1]}")
    filled(opened()).finish()
    assert files(store) == whole
    lines = whole[MANIFEST].splitlines()
    first = json.loads(lines[1])
    store.pipe(f"/shop/rows/{MANIFEST}", b"\n".join([lines[0], json.dumps({**first, "rows": 9}).encode(), b""]))
    with pytest.raises(DiffcernError, match=r"part-000000\.parquet is not as it was written"):
        opened()


class Refusing(fsspec.AbstractFileSystem):
    protocol = "refusing"

    def ls(self, path, detail=True, **how):
        raise PermissionError("403: forbidden")


@pytest.mark.parametrize(
    ("address", "kind", "message"),
    [
        ("s3://bucket/rows", UsageError, "cannot open s3://bucket/rows: .*s3fs"),
        ("warp://rows", UsageError, "cannot open warp://rows: .*warp"),
        ("refusing://rows", DiffcernError, "refusing://rows is refused to you: 403: forbidden; check your credentials"),
        ("memory://rows.parquet", UsageError, r"without a dot, not memory://rows\.parquet"),
        ("memory://", UsageError, "give --out a folder in it"),
    ],
)
def test_addresses_that_cannot_be_used(address, kind, message, monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)  # as where it is not installed
    fsspec.register_implementation("refusing", Refusing, clobber=True)
    adapt = jobs.Adapt(images="nowhere", predictor="nothing", method="source")
    with pytest.raises(kind, match=message):  # before anything else is looked at
        adapt.carry_out(address)


def test_paths_and_addresses(tmp_path):
    assert isinstance(storage_of(f"file://{tmp_path}/rows"), LocalFolder)
    assert isinstance(storage_of("rows"), LocalFolder)
    there = ObjectStore("memory://shop/rows/")
    assert (str(there), there.at("a")) == ("memory://shop/rows", "memory://shop/rows/a")
    assert there.journals != ObjectStore("memory://other/rows").journals


@pytest.fixture
def pictures(tmp_path):
    folder, digits = tmp_path / "pictures", load_dataset("embedded:digits")
    folder.mkdir()
    for place in range(12):
        (folder / f"{place:02}.png").write_bytes(encode_png(digits[place].image))
    return folder


def test_adapt_into_a_store(cli, store, pictures, tmp_path, monkeypatch):
    command = ("adapt", pictures, "--predictor", "embedded:digits", "--method", "source", "--device", "cpu", "--out")
    assert cli(*command, tmp_path / "one.parquet")[0] == 0
    with monkeypatch.context() as broken:
        add = Journal.add
        broken.setattr(Journal, "add", lambda self, row: failing() if row["id"] == "11.png" else add(self, row))
        code, _, err = cli(*command, ROWS)
    assert code == 130
    assert "11 rows are kept in memory://shop/rows and, of parts on the way, in" in " ".join(err.split())
    code, _, err = cli(*command, ROWS)
    assert code == 0
    assert "12 rows in memory://shop/rows" in err
    found = pa.concat_tables(pq.read_table(pa.BufferReader(files(store)[name])) for name in PARTS[:2])
    assert found.drop(["seconds"]).equals(pq.read_table(tmp_path / "one.parquet").drop(["seconds"]))
    assert not any(tmp_path.glob("memory*"))


@pytest.mark.parametrize("command", ["bench specs.toml", "view run", "explain x --prior y", "demo"])
def test_results_that_go_to_a_disk(cli, command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, _, err = cli(*command.split(), "--out", "memory://shop/run")
    assert code == 2
    assert "give --out a path of this machine, not memory://shop/run" in " ".join(err.split())
    assert not any(tmp_path.glob("memory*"))


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/rows", "https://example.org/rows"])
def test_addresses_that_take_nothing(cli, address):
    code, _, err = cli("classify", "embedded:digits", "--prior", "embedded:digits", "--out", address)
    assert code == 2
    assert f"{address} is read only: give --out a folder of this machine" in " ".join(err.split())


def test_functions_take_addresses(store, pictures):
    how = {"prior": "embedded:digits", "options": {"steps": 2}, "device": "cpu"}
    with pytest.raises(UsageError, match="give --form webdataset or parquet with --out memory://shop/rows"):
        purify(str(pictures), **how, out=ROWS)
    with pytest.raises(UsageError, match="give --out a path of this machine"):
        bench("specs/digits.toml", out=ROWS)


@pytest.mark.parametrize(("form", "suffix"), [("webdataset", "tar"), ("parquet", "parquet")])
def test_shards_into_a_store(store, pictures, tmp_path, form, suffix):
    how = {"images": str(pictures), "prior": "embedded:digits", "options": {"steps": 2}, "device": "cpu", "form": form}
    job = jobs.Purify(**how)
    job.carry_out(tmp_path / "shards")
    made = job.carry_out(ROWS)
    assert (made.made, str(made.sheet)) == (12, f"{ROWS}/before-after.png")
    assert files(store) == {path.name: path.read_bytes() for path in (tmp_path / "shards").iterdir()}
    assert (job.carry_out(ROWS).there, len(load_dataset(f"{form}:{ROWS}/part-*.{suffix}").ids)) == (12, 12)
