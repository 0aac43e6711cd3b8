"""A table in parts: the same files whatever was killed on the way, and nothing read again that is done."""

import errno
import json
from functools import partial

import fsspec
import pyarrow.parquet as pq
import pytest
import torch
from shards import shard

from diffcern import jobs
from diffcern.data import ImageFolder, encode_png, load_dataset
from diffcern.errors import DiffcernError, UsageError
from diffcern.jobs.spread import Spread
from diffcern.run import parts
from diffcern.run.digests import of_images
from diffcern.run.journal import Journal
from diffcern.run.manifest import NAME as MANIFEST
from diffcern.run.manifest import Manifest
from diffcern.run.parts import Parts
from diffcern.run.shards import key
from run.conftest import Backwards
from run.numbered import IDS, SCHEMA, filled, opened, row


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(parts, "PART", 10)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.glob("part-*.parquet")}


def test_one_table_for_readers_of_folders(tmp_path):
    rows = filled(opened(tmp_path / "rows")).finish()
    assert len(rows) == 25
    assert rows.skipped == 1
    assert [found["value"] for found in rows] == list(range(25))
    assert (rows[12]["id"], rows[-1]["id"], [found["id"] for found in rows[9:11]]) == ("012", "024", ["009", "010"])
    assert pq.read_table(tmp_path / "rows").column("value").to_pylist() == list(range(25))
    assert sorted(path.name for path in (tmp_path / "rows").iterdir()) == [MANIFEST, *sorted(files(tmp_path / "rows"))]


@pytest.mark.parametrize("order", [range(25), [24, 3, 11, *range(12, 24), 0, *range(4, 11), 1, 2]])
def test_the_same_files_after_any_interruption(tmp_path, order):
    """Rows come in any order, as from workers; after each the command may be killed, and its last line be torn."""
    filled(opened(tmp_path / "whole")).finish()
    order = list(order)
    for place in order:
        table = opened(tmp_path / "rows")
        assert place in {left for stretch in table.todo() for left in stretch}
        table.add(row(place))
        del table
        with (tmp_path / "rows" / MANIFEST).open("a") as file:
            file.write('{"part": 1, "ro')
    table = opened(tmp_path / "rows")
    assert (table.done, table.todo()) == (25, [])
    table.finish()
    assert files(tmp_path / "rows") == files(tmp_path / "whole")


@pytest.mark.parametrize(
    ("what", "step"),
    [(Journal, "write"), (Manifest, "write"), (Journal, "remove")],
    ids=["before the part", "before its line", "before the journal goes"],
)
def test_killed_while_a_part_ends(tmp_path, monkeypatch, what, step):
    table = opened(tmp_path / "rows")
    filled(table, range(9))
    with monkeypatch.context() as killed:
        killed.setattr(what, step, lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            table.add(row(9))
    del table
    again = opened(tmp_path / "rows")
    assert again.done == 10
    filled(again).finish()
    assert not [*(tmp_path / "rows").glob(".part-*")]
    filled(opened(tmp_path / "whole")).finish()
    assert files(tmp_path / "rows") == files(tmp_path / "whole")


def test_what_is_refused(tmp_path):
    first = filled(opened(tmp_path / "rows"), range(12))
    with pytest.raises(DiffcernError, match="another command is writing"):
        opened(tmp_path / "rows")
    del first
    for ids, settings in ((IDS[:-1], {"seed": 0}), (IDS, {"seed": 1})):
        with pytest.raises(DiffcernError, match=r"other settings \((rows was 25, is 24|seed was 0, is 1)\)"):
            opened(tmp_path / "rows", ids, settings)
    with pytest.raises(DiffcernError, match="is about what has changed since: delete it"):
        opened(tmp_path / "rows", ["other", *IDS[1:]])
    again = opened(tmp_path / "rows", ["other", *IDS[1:]], overwrite=True)
    assert list(again.todo()[0]) == list(range(10))
    del again
    assert opened(tmp_path / "rows", settings={"seed": 1}, overwrite=True).done == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.png").touch()
    with pytest.raises(DiffcernError, match="holds other files"):
        opened(tmp_path / "mine")


def test_a_damaged_part(tmp_path):
    filled(opened(tmp_path / "rows")).finish()
    path = tmp_path / "rows" / "part-000001.parquet"
    good = path.read_bytes()
    path.write_bytes(good[:50])
    with pytest.raises(DiffcernError, match=r"part-000001\.parquet.*delete it, and the same command makes it again"):
        opened(tmp_path / "rows")
    path.unlink()
    filled(opened(tmp_path / "rows")).finish()
    assert path.read_bytes() == good


def test_a_part_of_an_older_version_whose_line_says_no_size(tmp_path):
    filled(opened(tmp_path / "rows")).finish()
    first, *lines = (tmp_path / "rows" / MANIFEST).read_text().splitlines()
    older = [json.dumps({name: value for name, value in json.loads(line).items() if name != "bytes"}) for line in lines]
    (tmp_path / "rows" / MANIFEST).write_text("\n".join([first, *older, ""]))
    assert opened(tmp_path / "rows").done == 25
    path = tmp_path / "rows" / "part-000001.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    with pytest.raises(DiffcernError, match=r"part-000001\.parquet is not as it was written: delete it"):
        opened(tmp_path / "rows")


def test_a_full_disk(tmp_path, monkeypatch):
    """The error of the system, and what was written before is gone on with."""
    table, add = filled(opened(tmp_path / "rows"), range(13)), Journal.add

    def full(journal, row):
        raise OSError(errno.ENOSPC, "No space left on device", str(journal.path))

    monkeypatch.setattr(Journal, "add", full)
    with pytest.raises(OSError, match="No space left"):
        table.add(row(13))
    monkeypatch.setattr(Journal, "add", add)
    del table
    assert opened(tmp_path / "rows").done == 13


def test_a_disk_that_is_full_when_a_part_is_written(tmp_path, monkeypatch):
    def full(journal, path):
        path.write_bytes(b"as far as it")
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    table = filled(opened(tmp_path / "rows"), range(9))
    with monkeypatch.context() as disk:
        disk.setattr(Journal, "write", full)
        with pytest.raises(OSError, match="No space left"):
            table.add(row(9))
    del table
    again = opened(tmp_path / "rows")
    assert again.done == 10
    filled(again).finish()
    filled(opened(tmp_path / "whole")).finish()
    assert files(tmp_path / "rows") == files(tmp_path / "whole")


def test_a_tar_that_changed_between_two_commands(tmp_path):
    """What is about another image is told apart, and the others are not."""

    def digests(*pixels):
        members = [(f"{k}.png", encode_png(torch.full((3, 8, 8), float(value)))) for k, value in enumerate(pixels)]
        (tmp_path / "x.tar").write_bytes(shard(members))
        of = of_images(load_dataset(f"webdataset:{tmp_path / 'x.tar'}"), tmp_path / "rows")
        return [of(id) for id in "01"]

    first, second = digests(0, 0), digests(0, 1)
    assert first[0] == second[0]
    assert first[1] != second[1]


@pytest.fixture
def pictures(tmp_path):
    folder, digits = tmp_path / "pictures", load_dataset("embedded:digits")
    folder.mkdir()
    for place in range(12):
        (folder / f"{place:02}.png").write_bytes(encode_png(digits[place].image))
    return folder


def test_done_parts_are_not_read_again(tmp_path, pictures, monkeypatch):
    """But where a file is another one, by size or time, its image is, and a part about another image is refused."""
    data = load_dataset(str(pictures))
    how = {"digests": partial(of_images, data), "schema": SCHEMA}
    table = Parts(tmp_path / "rows", {}, data.ids, **how)
    for id in data.ids[:11]:
        table.add({"id": id, "value": 0, "error": None})
    del table
    read: list[int] = []
    monkeypatch.setattr(ImageFolder, "content", lambda self, row: read.append(row) or self.file(row))
    assert Parts(tmp_path / "rows", {}, data.ids, **how).done == 11
    assert read == []
    content = (pictures / "03.png").read_bytes()
    (pictures / "03.png").write_bytes(content)  # the same one, copied anew
    assert Parts(tmp_path / "rows", {}, data.ids, **how).done == 11
    assert len(read) == 10
    (pictures / "03.png").write_bytes((pictures / "04.png").read_bytes())
    with pytest.raises(DiffcernError, match=r"part-000000\.parquet is about what has changed since"):
        Parts(tmp_path / "rows", {}, data.ids, **how)


def test_a_job_into_a_folder(tmp_path, pictures, monkeypatch):
    (pictures / "05.png").write_bytes(b"torn")
    adapt = jobs.Adapt(images=str(pictures), predictor="embedded:digits", method="source", device="cpu")
    one, table = adapt.carry_out(tmp_path / "one.parquet"), adapt.carry_out(tmp_path / "rows")
    assert pq.read_table(one.out).drop(["seconds"]).equals(pq.read_table(table.out).drop(["seconds"]))
    assert (table.skipped, len(table.first(3)), len(table.rows)) == (1, 3, 12)
    lines = [json.loads(line) for line in (tmp_path / "rows" / MANIFEST).read_text().splitlines()]
    assert [line.get("skipped") for line in lines] == [None, 1, 0]
    monkeypatch.setattr(Spread, "executor", lambda job, device, events: Backwards())
    adapt.carry_out(tmp_path / "elsewhere")
    assert pq.read_table(table.out).drop(["seconds"]).equals(pq.read_table(tmp_path / "elsewhere").drop(["seconds"]))
    stream = jobs.Adapt(images=str(pictures), predictor="embedded:digits", method="tent", online=True, batch_size=4)
    with pytest.raises(UsageError, match=r"give --out FILE\.parquet"):
        stream.carry_out(tmp_path / "stream")


def test_a_manifest_that_was_lost_loses_no_part(tmp_path):
    """As after a power cut: parts whose settings nobody knows are not taken for none."""
    filled(opened(tmp_path / "rows")).finish()
    before = files(tmp_path / "rows")
    (tmp_path / "rows" / MANIFEST).write_text("")
    with pytest.raises(DiffcernError, match="is damaged in line 1"):
        opened(tmp_path / "rows")
    assert files(tmp_path / "rows") == before


def test_an_interruption_lets_go_of_the_folder(tmp_path, pictures, monkeypatch):
    """As in a notebook, which keeps the exception, and with it everything that was going on."""
    adapt = jobs.Adapt(images=str(pictures), predictor="embedded:digits", method="source", device="cpu")
    for out in (tmp_path / "rows", tmp_path / "rows.parquet"):
        with monkeypatch.context() as broken:
            add = Journal.add

            def interrupted(journal, row, add=add):
                if row["id"] == "04.png":
                    raise KeyboardInterrupt
                add(journal, row)

            broken.setattr(Journal, "add", interrupted)
            with pytest.raises(KeyboardInterrupt) as kept:
                adapt.carry_out(out)
        assert len(adapt.carry_out(out).rows) == 12
        assert "4 rows are kept" in str(kept.value)


def test_a_store_that_does_not_answer_has_not_changed(tmp_path, monkeypatch):
    store = fsspec.filesystem("memory")
    for name in "ab":
        store.pipe(f"/far/{name}.png", encode_png(load_dataset("embedded:digits")[ord(name) - 97].image))
    (tmp_path / "list.txt").write_text("memory://far/a.png\nmemory://far/b.png\n")
    adapt = jobs.Adapt(
        images=f"files:{tmp_path / 'list.txt'}", predictor="embedded:digits", method="source", device="cpu"
    )
    adapt.carry_out(tmp_path / "rows")
    before = files(tmp_path / "rows")
    monkeypatch.setattr(type(store), "info", lambda *given, **how: (_ for _ in ()).throw(TimeoutError("no route")))
    for overwrite in (False, True):
        with pytest.raises(DiffcernError, match=r"cannot read memory://far/a\.png: .*no route"):
            adapt.carry_out(tmp_path / "rows", overwrite=overwrite)
    assert files(tmp_path / "rows") == before


def test_keys_of_shards_are_as_many_as_ids():
    ids = ["a.jpg", "a.png", "a-1.jpg", "a_jpg", "a%2Ejpg", "cats/a.jpg", "/cats/a.jpg"]
    keys = [key(id) for id in ids]
    assert len(set(keys)) == len(ids)
    assert not any("." in each or each.startswith("/") for each in keys)
