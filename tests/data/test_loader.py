"""Data sets as a user of torch and datasets expects them: in a `DataLoader`, and in tables that name files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import DataLoader

import diffcern
from diffcern.data import UnreadableImage, encode_png, load_dataset, load_pairs, load_questions
from diffcern.data.maps import encode_depth, encode_mask
from diffcern.errors import DiffcernError, UsageError


@pytest.mark.parametrize("workers", [0, 1])
def test_a_data_set_in_a_loader(workers):
    data = load_dataset("embedded:digits")
    loader = DataLoader(data, batch_size=4, num_workers=workers)
    images, targets = next(iter(loader))  # as torchvision's data sets unpack
    assert torch.equal(images, torch.stack([data[i].image for i in range(4)]))
    assert targets.tolist() == list(data.targets[:4])
    batch = next(iter(loader))
    assert batch.ids == list(data.ids[:4])
    assert (len(batch), batch.masks, batch.depths) == (4, None, None)
    assert sum(len(batch) for batch in loader) == len(data)
    assert batch.to("cpu").images is batch.images
    predictor = diffcern.load_predictor("embedded:digits")
    assert predictor(batch.images).shape == (4, 10)
    assert torch.equal(
        next(iter(DataLoader(diffcern.data.subset(data, 6, 0), batch_size=2))).images[0],
        data[data.ids.index(diffcern.data.subset(data, 6, 0).ids[0])].image,
    )


def test_maps_are_stacked_too():
    batch = next(iter(DataLoader(load_dataset("embedded:scenes/test"), batch_size=3)))
    assert batch.masks.shape == batch.depths.shape == (3, *batch.images.shape[-2:])


def test_images_of_several_sizes_say_what_to_do(tmp_path):
    for k, side in enumerate((8, 8, 12)):
        (tmp_path / f"{k}.png").write_bytes(encode_png(torch.rand(3, side, 8)))
    data = load_dataset(str(tmp_path))
    with pytest.raises(UsageError, match=r"images of 2 sizes do not stack: batch_size=1, or collate_fn=list"):
        list(DataLoader(data, batch_size=3))
    (samples,) = DataLoader(data, batch_size=3, collate_fn=list)
    answers = diffcern.load_predictor("embedded:digits")([sample.image for sample in samples])
    assert answers.shape == (3, 10)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_in_a_loader_is_named(tmp_path, workers):
    (tmp_path / "a.png").write_bytes(b"nothing of the kind")
    with pytest.raises(UnreadableImage, match=r"cannot read image 'a\.png'"):
        list(DataLoader(load_dataset(str(tmp_path)), num_workers=workers))


@pytest.mark.slow
def test_pairs_and_questions_come_as_lists():
    for data in (load_pairs("embedded:scenes"), load_questions("embedded:scenes")):
        (first, second) = next(iter(DataLoader(data, batch_size=2)))
        assert [first.id, second.id] == list(data.ids[:2])


def written(folder: Path, **columns) -> str:
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), folder / "table.parquet")
    return f"parquet:{folder / 'table.parquet'}"


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "table" / "images").mkdir(parents=True)
    images = [torch.rand(3, 8, 8).mul(255).round().div(255) for _ in range(3)]
    for k, image in enumerate(images):
        (tmp_path / "table" / "images" / f"{k}.png").write_bytes(encode_png(image))
    return tmp_path / "table", images


def test_rows_with_a_path_and_no_bytes(photos, tmp_path, monkeypatch):
    """Absolute, relative to the table, or to where one stands; bytes come first where both are there."""
    folder, images = photos
    shutil.copy(folder / "images" / "2.png", tmp_path / "here.png")
    monkeypatch.chdir(tmp_path)
    rows = [
        {"bytes": None, "path": "images/0.png"},
        {"bytes": None, "path": str(folder / "images" / "1.png")},
        {"bytes": None, "path": "here.png"},
        {"bytes": encode_png(images[0]), "path": "images/1.png"},
        {"bytes": None, "path": "images/missing.png"},
        {"bytes": None, "path": None},
        {"bytes": None, "path": "https://example.org/a.png"},
    ]
    data = load_dataset(written(folder, image=rows, label=list(range(7))))
    for index, image in enumerate([*images, images[0]]):
        assert torch.equal(data[index].image, image)
    for index, reason in ((4, "no such file"), (5, "no image bytes and no path"), (6, "not fetched: download it")):
        with pytest.raises(UnreadableImage, match=reason):
            data[index]


@pytest.mark.parametrize("column", ["image", "file_name", "image_path", "path"])
def test_a_column_of_paths(photos, column):
    folder, images = photos
    data = load_dataset(written(folder, **{column: [f"images/{k}.png" for k in range(3)], "label": [0, 1, 0]}))
    assert all(torch.equal(data[k].image, image) for k, image in enumerate(images))
    assert list(data.targets) == [0, 1, 0]


def test_masks_and_depths_by_path(photos):
    folder, _ = photos
    mask, depth = torch.randint(0, 3, (8, 8)), torch.rand(8, 8) + 0.5
    (folder / "mask.png").write_bytes(encode_mask(mask))
    (folder / "depth.png").write_bytes(encode_depth(depth))
    paths = {"image": "images/0.png", "mask": "mask.png", "depth": "depth.png"}
    columns = {name: [{"bytes": None, "path": path}] for name, path in paths.items()}
    schema = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {name: pa.array(rows, type=schema) for name, rows in columns.items()}
    (sample,) = load_dataset(written(folder, **columns), mask_names=["a", "b", "c"])
    assert torch.equal(sample.mask, mask)
    assert torch.allclose(sample.depth, depth, atol=1e-3)


def test_labels_that_are_texts(photos):
    folder, _ = photos
    paths = [f"images/{k}.png" for k in range(3)]
    data = load_dataset(written(folder, image=paths, label=["dog", "cat", None]))
    assert (data.class_names, list(data.targets)) == (("cat", "dog"), [1, 0, -1])
    data = load_dataset(written(folder, image=paths, label=["dog", "cat", "dog"]), class_names=["dog", "fish", "cat"])
    assert list(data.targets) == [0, 2, 0]
    with pytest.raises(DiffcernError, match=r"column 'label' holds dog, and the class names are cat, fish"):
        load_dataset(written(folder, image=paths, label=["dog", "cat", "dog"]), class_names=["cat", "fish"])


def test_splits_are_no_classes(tmp_path):
    """`imagefolder:ROOT` of a folder that holds train/ and val/ would tell these two apart, and nobody would notice."""
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / "a.png").write_bytes(encode_png(torch.rand(3, 8, 8)))
    with pytest.raises(DiffcernError, match=r"holds splits \(train, val\), .*: give one of them, imagefolder:.*train"):
        load_dataset(f"imagefolder:{tmp_path}")
    assert load_dataset(f"imagefolder:{tmp_path / 'val'}").class_names == ("cat", "dog")
    assert len(load_dataset(str(tmp_path))) == 4  # without labels, all are images
