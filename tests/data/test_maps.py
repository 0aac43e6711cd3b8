"""Masks and depth maps beside images, in Parquet files and in repositories of the hub."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from diffcern.data import UnreadableImage, encode_png, load_dataset, subset
from diffcern.data.base import VOID, Sample
from diffcern.data.maps import decode_depth, decode_mask, encode_depth, encode_mask, palette
from diffcern.errors import DiffcernError, UsageError
from diffcern.tasks import Segmentation


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
    with pytest.raises(UnreadableImage, match="a mask in colours"):
        decode_mask(png(np.arange(12, dtype=np.uint8).reshape(2, 2, 3)), "a")
    with pytest.raises(UnreadableImage, match=r"a depth map is an image of mode .*, not RGB"):
        decode_depth(png(np.zeros((2, 2, 3), np.uint8)), "a")
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


MASK = np.array([[0, 1, 2, 3, 255, 0]] * 4, np.uint8)
MILLIMETRES = np.array([[0, 500, 1500, 65535, 1, 2]] * 4, np.uint16)
NAMES = ["sky", "void", "road", "car"]


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """Writes columns as the split "test" of the data set repository someone/NAME, as `push_to_hub` does."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.chdir(tmp_path)  # where a folder called like a repository is taken for it
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")

    def write(name, columns, **kinds):
        features = {"image": datasets.Image(), "id": datasets.Value("string"), **kinds}
        images = [{"bytes": png(np.full((4, 6, 3), value, np.uint8)), "path": None} for value in (10, 20)]
        rows = datasets.Dataset.from_dict({"image": images, "id": ["a", "b"], **columns}, datasets.Features(features))
        (tmp_path / "someone" / name / "data").mkdir(parents=True)
        rows.to_parquet(tmp_path / "someone" / name / "data" / "test-00000-of-00001.parquet")
        return f"someone/{name}:test"

    return write


def stored(data):
    return {"bytes": data, "path": None}


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["hf", "hf-stream"])
def test_masks_and_depth_of_a_hub_repository(prefix, repository):
    """Nothing is decoded into the colours of a palette."""
    from datasets import Image as HubImage

    columns = {"annotation": [stored(encode_mask(torch.from_numpy(MASK)))] * 2}
    columns["depth"] = [stored(png(MILLIMETRES)), None]
    name = repository("scenes", columns, annotation=HubImage(), depth=HubImage())
    data = load_dataset(f"{prefix}:{name}" + (":2" if prefix == "hf-stream" else ""), class_names=NAMES)
    assert data.mask_names == ("sky", "road", "car")
    assert data.class_names == ()  # the images have no label
    first, second = (data[data.ids.index(name)] for name in "ab")
    assert first.mask[0].tolist() == second.mask[0].tolist() == [0, VOID, 1, 2, VOID, 0]
    assert first.depth[0].tolist() == pytest.approx([0, 0.5, 1.5, 65.535, 0.001, 0.002])
    assert second.depth is None
    assert [round(255 * sample.image.mean().item()) for sample in (first, second)] == [10, 20]


def test_a_label_that_is_an_image_is_a_mask(repository, tmp_path):
    from datasets import Image as HubImage

    columns = {"label": [stored(png(MASK))] * 2}
    data = load_dataset(f"hf:{repository('labels', columns, label=HubImage())}", mask_names=NAMES)
    assert data.mask_names == ("sky", "road", "car")
    assert data[0].mask[0].tolist() == [0, VOID, 1, 2, VOID, 0]
    assert list(data.targets) == [-1, -1]
    assert load_dataset(table(tmp_path / "t.parquet", label=png(MASK)))[0].mask.shape == (4, 6)


def test_maps_in_files_beside_a_hub_table(tmp_path, monkeypatch):
    """As the hub's folders of images give them; one that has gone is named."""
    datasets = pytest.importorskip("datasets")
    (tmp_path / "mask.png").write_bytes(png(MASK))
    paths = [{"bytes": None, "path": str(tmp_path / name)} for name in ("mask.png", "gone.png")]
    columns = {"image": [stored(png(np.zeros((4, 6, 3), np.uint8)))] * 2, "mask": paths}
    features = datasets.Features({"image": datasets.Image(), "mask": datasets.Image()})
    rows = datasets.Dataset.from_dict(columns, features)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: rows)
    data = load_dataset("hf:someone/folder:test")
    assert data[0].mask[0].tolist() == MASK[0].tolist()
    with pytest.raises(UnreadableImage, match=r"'1': .*gone.png: No such file"):
        data[1]


def test_labels_and_masks_in_one_table_have_names_of_their_own(repository, tmp_path):
    from datasets import ClassLabel
    from datasets import Image as HubImage

    columns = {"mask": [stored(png(MASK))] * 2, "label": [1, 0]}
    name = repository("both", columns, mask=HubImage(), label=ClassLabel(names=["indoors", "outdoors"]))
    folder = tmp_path / "someone" / "both" / "data"
    for place in (f"hf:{name}", f"parquet:{folder}", str(next(folder.iterdir()))):
        data = load_dataset(place, mask_names=NAMES)
        assert data.mask_names == ("sky", "road", "car")
        assert data.class_names == ("indoors", "outdoors")
        assert list(data.targets) == [1, 0]
        assert data[0].mask[0].tolist() == [0, VOID, 1, 2, VOID, 0]
        data = load_dataset(place, class_names=["in", "out"])
        assert (data.class_names, data.mask_names) == (("in", "out"), ())


def test_names_of_masks_where_there_are_none(tmp_path):
    (tmp_path / "a.png").write_bytes(png(np.zeros((4, 6, 3), np.uint8)))
    for place in (f"folder:{tmp_path}", str(tmp_path)):
        with pytest.raises(UsageError, match="no masks whose classes could be named"):
            load_dataset(place, mask_names=NAMES)
    with pytest.raises(UsageError, match="its own class names"):
        load_dataset("embedded:scenes", mask_names=NAMES)


def test_a_second_column_of_pictures_is_no_label(tmp_path):
    """Of the usual names the first holds the masks; the other is left alone, not read as numbers."""
    mask = encode_mask(torch.zeros(4, 4, dtype=torch.long))
    row = {"image": encode_png(torch.rand(3, 4, 4)), "mask": mask, "label": mask}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "data.parquet")
    (sample,) = load_dataset(str(tmp_path / "data.parquet"))
    assert sample.target == -1
    assert sample.mask is not None


def encoded(array, mode: str, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(array)).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def test_conventions_of_published_masks():
    """VOC: a palette, and 255 at the borders. ADE20K: 0 is void. Others: three equal channels, and alpha."""
    values = np.array([[0, 1, 2], [3, 255, 1]], dtype=np.uint8)
    plain = torch.from_numpy(values).long()
    image = Image.fromarray(values, mode="P")
    image.putpalette([k for k in range(256) for _ in range(3)])
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    assert torch.equal(decode_mask(buffer.getvalue(), "a"), plain)
    for mode in ("L", "LA", "RGB", "RGBA"):
        assert torch.equal(decode_mask(encoded(values, mode), "a"), plain)
    expected = torch.tensor([[255, 0, 1], [2, 255, 0]])
    assert torch.equal(decode_mask(encoded(values, "L"), "a", ["void", "wall", "building", "sky"]), expected)
    colours = np.stack([values, values, 255 - values], -1)
    with pytest.raises(UnreadableImage, match="a mask in colours, which are no class indices"):
        decode_mask(encoded(colours, "RGB"), "a")
    for decoder in (decode_mask, decode_depth):
        with pytest.raises(UnreadableImage, match="stored as JPEG, whose losses make other values: store it as PNG"):
            decoder(encoded(values, "L", "JPEG"), "a")


@pytest.mark.parametrize(
    ("values", "count", "message"),
    [
        ([0, 1, 150], 150, r"holds \[150\].*0 is void, as in ADE20K's masks, begin the names with void"),
        ([7, 26, 33], 19, r"holds \[26, 33\].*Cityscapes' labelIds run to 33"),
        ([0, 70], 19, r"holds \[70\], .* mark what is none as void$"),
    ],
)
def test_masks_of_another_convention_are_named(values, count, message):
    task = Segmentation([str(k) for k in range(count)])
    sample = Sample("a", torch.zeros(3, 1, len(values)), -1, mask=torch.tensor([values]))
    with pytest.raises(DiffcernError, match=message):
        task.check_sample(sample, sample.image)


def test_black_and_white_masks_are_no_classes(tmp_path):
    """Of 0 and 255, as a picture of foreground and background: white would be void, and be left out of every figure."""
    from diffcern.run.truths import check_truth
    from diffcern.train.images import read_table

    def data(white):
        rows = [
            {"id": str(k), "image": {"bytes": png(np.zeros((8, 8, 3), np.uint8)), "path": None}, "mask": None}
            for k in range(3)
        ]
        for k, row in enumerate(rows):
            mask = np.zeros((8, 8), np.uint8)
            mask[k:, :] = white
            row["mask"] = png(mask)
        path = tmp_path / f"{white}.parquet"
        pq.write_table(pa.Table.from_pylist(rows), path)
        return load_dataset(f"parquet:{path}", mask_names=["ground", "thing"])

    check_truth(data(1), "good", "segmentation", range(3))
    assert read_table(data(1), 8, "mask").truth.unique().tolist() == [0, 1]
    for check in (
        lambda: check_truth(data(255), "bad", "segmentation", range(3)),
        lambda: read_table(data(255), 8, "mask"),
    ):
        with pytest.raises(UsageError, match=r"hold 0 and 255 alone.*store it as 1"):
            check()
