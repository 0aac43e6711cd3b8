"""Images that a text file lists, here and in an object store; and what tells that one of a store has changed."""

import fsspec
import pytest
import torch

from diffcern.data import UnreadableImage, encode_png, load_dataset, readable
from diffcern.errors import DiffcernError
from diffcern.run.digests import beside, of_images


def png(seed):
    return encode_png(torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(seed)))


@pytest.fixture
def listed(tmp_path):
    """Two files and an address, of which the last file is not there."""
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "1[a].png").write_bytes(png(1))
    fsspec.filesystem("memory").pipe("/listed/2.png", png(2))
    path = tmp_path / "list.txt"
    path.write_text("cats/1[a].png\tcat\r\n\nmemory://listed/2.png\tdog\ngone.png\n", encoding="utf-8-sig")
    return path


def test_a_list_of_files(listed):
    data = load_dataset(f"files:{listed}")
    assert list(data.ids) == ["cats/1[a].png", "memory://listed/2.png", "gone.png"]
    assert (list(data.targets), data.class_names) == ([0, 1, -1], ("cat", "dog"))
    assert [encode_png(data[row].image) for row in range(2)] == [png(1), png(2)]
    found = list(readable(data))
    assert isinstance(found[2], UnreadableImage)
    assert "no such file" in found[2].reason
    assert list(load_dataset(f"files:{listed}", class_names=("dog", "cat")).targets) == [1, 0, -1]


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "lists no images"), ("a.png\na.png\n", "must be unique"), ("a.png\t0\nb.png\tcat\n\n", "")],
)
def test_lists_that_cannot_be_used(tmp_path, text, message):
    (tmp_path / "l.txt").write_text(text)
    if not message:  # numbers among names are names
        assert load_dataset(f"files:{tmp_path / 'l.txt'}").class_names == ("0", "cat")
        return
    with pytest.raises(DiffcernError, match=message):
        load_dataset(f"files:{tmp_path / 'l.txt'}")
    with pytest.raises(DiffcernError, match="no such file"):
        load_dataset(f"files:{tmp_path / 'none.txt'}")


def test_an_image_of_a_store_is_read_again_where_its_version_changed(listed, tmp_path, monkeypatch):
    out, id = tmp_path / "rows.parquet", "memory://listed/2.png"
    first = of_images(load_dataset(f"files:{listed}"), out)(id)
    assert id in beside(out).read_text()
    monkeypatch.setattr("diffcern.data.file_list.FileList.content", lambda self, row: pytest.fail("was read again"))
    assert of_images(load_dataset(f"files:{listed}"), out)(id) == first
    fsspec.filesystem("memory").pipe("/listed/2.png", png(3))
    assert of_images(load_dataset(f"files:{listed}"), out)(id) != first
