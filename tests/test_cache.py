"""The cache of purified images: exact, bounded, shared by processes, and no worse than absent when damaged."""

import multiprocessing
import os

import pytest
import torch

from diffcern.cache import TensorCache
from diffcern.errors import DiffcernError


def test_what_is_kept_comes_back_bit_for_bit(tmp_path):
    cache, value = TensorCache(tmp_path), torch.rand(3, 5, 5)
    assert cache.get("ab12") is None
    cache.put("ab12", value)
    assert torch.equal(cache.get("ab12"), value)
    assert torch.equal(TensorCache(tmp_path).get("ab12"), value)


@pytest.mark.parametrize("damage", ["truncate", "flip", "garbage"])
def test_a_damaged_entry_is_none(tmp_path, damage):
    cache = TensorCache(tmp_path)
    cache.put("ab12", torch.rand(3, 5, 5))
    (path,) = tmp_path.glob("*/*.safetensors")
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-5] ^= 1  # one bit of a pixel
    path.write_bytes({"truncate": content[:-9], "flip": content, "garbage": b"\0" * 40}[damage])
    assert cache.get("ab12") is None
    cache.put("ab12", torch.ones(2))
    assert torch.equal(cache.get("ab12"), torch.ones(2))


def test_the_longest_unused_go_first(tmp_path):
    cache = TensorCache(tmp_path, limit=5 * 4200)
    for number in range(4):
        cache.put(f"a{number}", torch.full((1000,), float(number)))
        os.utime(tmp_path / f"a{number}"[:2] / f"a{number}.safetensors", (number, number))
    cache.get("a0")
    for number in range(4, 7):
        cache.put(f"a{number}", torch.full((1000,), float(number)))
    assert cache.get("a0") is not None
    assert cache.get("a1") is None
    assert sum(path.stat().st_size for path in tmp_path.glob("*/*")) <= 5 * 4200


def test_a_full_disk_costs_the_entry_and_not_the_run(tmp_path, monkeypatch):
    cache = TensorCache(tmp_path)

    def full(self, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    cache.put("ab12", torch.rand(3))
    assert cache.get("ab12") is None
    assert not list(tmp_path.glob("*/*"))


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DiffcernError, match="cannot make the cache folder"):
        TensorCache(tmp_path / "file" / "cache")


def _write(folder, worker):
    cache = TensorCache(folder, limit=40_000)
    for number in range(60):
        cache.put(f"{number % 20:02d}", torch.full((500,), float(number % 20)))
        value = cache.get(f"{(number * worker) % 20:02d}")
        assert value is None or (value == (number * worker) % 20).all()


def test_processes_share_a_folder(tmp_path):
    workers = [multiprocessing.get_context("fork").Process(target=_write, args=(tmp_path, n)) for n in (1, 3, 7)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert not list(tmp_path.glob("*/*.partial"))
