"""Masks and depth maps beside images in Parquet files."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from diffcern.data import UnreadableImage, load_dataset, subset
from diffcern.data.base import VOID
from diffcern.data.maps import decode_depth, decode_mask, encode_depth, encode_mask, palette


def png(array, mode=None):
    buffer = io.BytesIO()
    Image.fromarray(array, mode).save(buffer, format="PNG")
    return buffer.getvalue()


def table(path, **columns):
    image = {"bytes": png(np.zeros((4, 6, 3), np.uint8)), "path": None}
    rows = {"image": [image, image], "id": ["a", "b"]}
    rows |= {name: [{"bytes": data, "path": None}] * 2 for name, data in columns.items()}
    pq.write_table(pa.table(rows), path)
    return f"parquet:{path}"


def test_masks_come_with_their_images_and_void_is_no_class(tmp_path):
    mask = np.array([[0, 1, 2, 3, 255, 0]] * 4, np.uint8)
    data = load_dataset(table(tmp_path / "t.parquet", mask=png(mask)), class_names=["sky", "void", "road", "car"])
    assert data.mask_names == ("sky", "road", "car")
    assert data.class_names == ()  # the images have no label
    assert data[0].mask[0].tolist() == [0, VOID, 1, 2, VOID, 0]
    assert data[0].depth is None
    chosen = subset(data, 1, seed=0)
    assert chosen.mask_names == data.mask_names
    assert torch.equal(chosen[0].mask, data[0].mask)


def test_depth_is_metres_and_zero_is_unknown(tmp_path):
    millimetres = np.array([[0, 500, 1500, 65535, 1, 2]] * 4, np.uint16)
    sample = load_dataset(table(tmp_path / "t.parquet", depth_mm=png(millimetres)))[1]
    assert sample.depth.dtype == torch.float32
    assert sample.depth[0].tolist() == pytest.approx([0, 0.5, 1.5, 65.535, 0.001, 0.002])
    assert sample.mask is None


def test_what_is_written_is_read_back():
    mask = torch.tensor([[0, 1], [2, 1]])
    data = encode_mask(mask)
    assert torch.equal(decode_mask(data, "a"), mask)
    assert Image.open(io.BytesIO(data)).convert("RGB").getpixel((0, 1)) == palette()[2]
    depth = torch.tensor([[0.0, 1.234], [70.0, 3.0]])
    assert decode_depth(encode_depth(depth), "a").flatten().tolist() == pytest.approx([0, 1.234, 65.535, 3])


def test_pictures_that_are_no_maps():
    with pytest.raises(UnreadableImage, match=r"a mask is an image of mode .*, not RGB"):
        decode_mask(png(np.zeros((2, 2, 3), np.uint8)), "a")
    with pytest.raises(UnreadableImage, match="a depth map that cannot be read"):
        decode_depth(b"nothing", "a")


def test_numbers_and_gaps_in_columns_that_are_called_like_maps(tmp_path):
    image = {"bytes": png(np.zeros((4, 6, 3), np.uint8)), "path": None}
    rows = {"image": [image, image], "label": [0, 1], "depth": [1.5, 2.5]}
    rows["mask"] = [None, {"bytes": png(np.zeros((4, 6), np.uint8)), "path": None}]
    pq.write_table(pa.table(rows), tmp_path / "t.parquet")
    data = load_dataset(f"parquet:{tmp_path / 't.parquet'}")
    assert data[0].depth is None
    assert data[0].mask is None
    assert data[1].mask.shape == (4, 6)
