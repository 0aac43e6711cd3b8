"""Data sets: what they hold, how a subset is chosen, and what their errors say."""

from __future__ import annotations

import io
import json
import os
import pickle
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from diffcern.data import (
    Dataset,
    ImageFolder,
    ParquetImages,
    Sample,
    UnreadableImage,
    load_dataset,
    names,
    parquet,
    readable,
    subset,
)
from diffcern.data.base import Accepts
from diffcern.errors import DiffcernError, UsageError
from diffcern.labels import imagenet_labels

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="no shared/data beside the checkout")
NAMES = ["cat", "dog", "owl"]


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (2, 2), value).save(buffer, format="PNG")
    return buffer.getvalue()


def value(sample: Sample) -> int:
    """The grey value that `png` was given."""
    return round(sample.image.mean().item() * 255)


# --- subsets -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """A data set of grey values: ids and targets as given."""

    ids: Sequence[str]
    targets: Sequence[int]
    name: str = "table"
    class_names: tuple[str, ...] = ("a", "b", "c")
    class_ids: tuple[str, ...] = ("n00000001", "n00000002", "n00000003")
    accepts: Accepts = (("n00000001", "n00000004"), ("n00000002",), ("n00000003",))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.ids[index], torch.zeros(3, 1, 1), self.targets[index])


TABLE = Table([f"s{i}" for i in range(100)], [0] * 60 + [1] * 30 + [2] * 10)


def test_subset_keeps_class_shares_and_row_order() -> None:
    chosen = subset(TABLE, 20, seed=0)
    assert Counter(chosen.targets) == {0: 12, 1: 6, 2: 2}
    rows = [TABLE.ids.index(i) for i in chosen.ids]
    assert rows == sorted(rows)
    assert [s.id for s in (chosen[i] for i in range(20))] == list(chosen.ids)
    assert (chosen.name, chosen.class_names, len(chosen)) == ("table", ("a", "b", "c"), 20)
    assert (chosen.class_ids, chosen.accepts) == (TABLE.class_ids, TABLE.accepts)


def test_subset_that_does_not_divide_evenly_is_within_one_of_each_share() -> None:
    counts = Counter(subset(TABLE, 7, seed=3).targets)
    assert sum(counts.values()) == 7
    for target, share in {0: 4.2, 1: 2.1, 2: 0.7}.items():
        assert abs(counts[target] - share) < 1


def test_subset_depends_on_ids_and_seed_not_on_row_order() -> None:
    order = np.random.default_rng(0).permutation(100)
    shuffled = Table([TABLE.ids[i] for i in order], [TABLE.targets[i] for i in order])
    for count in (1, 7, 50, 99):
        assert set(subset(TABLE, count, 0).ids) == set(subset(shuffled, count, 0).ids)
    assert set(subset(TABLE, 20, 0).ids) != set(subset(TABLE, 20, 1).ids)


def test_subset_choice_is_the_same_on_every_machine_and_version() -> None:
    """A published figure on a subset must be repeatable: if this fails, the choice of samples has changed."""
    assert list(subset(TABLE, 5, 0).ids) == ["s35", "s37", "s48", "s68", "s91"]


def test_subset_skips_what_another_choice_takes() -> None:
    reported = set(subset(TABLE, 30, 0).ids)
    assert set(subset(TABLE, None, 0, skip=30).ids) == set(TABLE.ids) - reported
    tuned = subset(TABLE, 20, 0, skip=30)
    assert Counter(tuned.targets) == {0: 12, 1: 6, 2: 2}
    assert not reported & set(tuned.ids)
    for skip in (-1, 100):
        with pytest.raises(UsageError, match="100 samples"):
            subset(TABLE, 5, 0, skip=skip)


def test_unlabelled_subset_is_uniform() -> None:
    table = Table(TABLE.ids, [-1] * 100)
    times = Counter(i for seed in range(200) for i in subset(table, 25, seed).ids)
    assert sum(times.values()) == 200 * 25
    # 50 expected each, binomial standard deviation 6.1: 100 samples within 5 deviations
    assert all(20 < times[i] < 80 for i in table.ids)


def test_subset_of_everything_and_of_nothing() -> None:
    assert subset(TABLE, None, 0) is TABLE
    assert subset(TABLE, 100, 0) is TABLE
    assert subset(TABLE, 1000, 0) is TABLE
    for count in (0, -3):
        with pytest.raises(UsageError, match="at least 1"):
            subset(TABLE, count, 0)


# --- the embedded digits -----------------------------------------------------------------------------------


def test_digits_splits_are_disjoint_complete_and_stratified() -> None:
    splits = {s: load_dataset(f"embedded:digits/{s}") for s in ("train", "validation", "test")}
    assert {s: len(d) for s, d in splits.items()} == {"train": 1197, "validation": 200, "test": 400}
    ids = [i for d in splits.values() for i in d.ids]
    assert sorted(ids) == [f"digits-{i:04d}" for i in range(1797)]
    whole = Counter(t for d in splits.values() for t in d.targets)
    for split in splits.values():
        for target, count in Counter(split.targets).items():
            assert abs(count - whole[target] * len(split) / 1797) < 2  # one for each of the two draws
    assert load_dataset("embedded:digits").ids == splits["test"].ids


def test_digits_splits_never_change() -> None:
    """The shipped weights were trained on `train`: if this fails, test images have moved into it."""
    assert list(load_dataset("embedded:digits/test").ids[:5]) == [
        "digits-0001",
        "digits-0007",
        "digits-0010",
        "digits-0015",
        "digits-0023",
    ]


def test_digits_pixels_and_targets() -> None:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    dataset = load_dataset("embedded:digits/validation")
    assert (dataset.name, dataset.class_names) == ("digits", tuple("0123456789"))
    assert (dataset.class_ids, dataset.accepts) == ((), None)
    for sample in (dataset[0], dataset[-1]):
        row = int(sample.id.removeprefix("digits-"))
        grey = torch.tensor(bunch.images[row] / 16)
        assert sample.target == bunch.target[row]
        assert sample.image.shape == (3, 16, 16)
        assert sample.image.dtype == torch.float32
        assert bool((sample.image[0] == sample.image[2]).all())
        # bilinear, twice as large: the four pixels around a corner of the grid are 1/4 of the way from it
        a, b, c, d = grey[3, 4], grey[3, 5], grey[4, 4], grey[4, 5]
        assert sample.image[0, 7, 9].item() == pytest.approx((9 * a + 3 * b + 3 * c + d).item() / 16)
        assert sample.image[0, 0, 0].item() == grey[0, 0].item()


def test_a_sample_can_be_written_to_without_harm() -> None:
    dataset = load_dataset("embedded:digits")
    before = dataset[0].image.clone()
    dataset[0].image.fill_(7)
    assert bool((dataset[0].image == before).all())


# --- folders -----------------------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes, mixed suffixes, a damaged file, and things that are to be passed over."""
    root = tmp_path / "pictures"
    files = {
        "dog/img10.png": png(10),
        "dog/img9.PNG": png(9),
        "cat/deep/er/a.png": png(1),
        "cat/broken.jpg": b"no picture",
        "cat/notes.txt": b"",
        ".hidden/x.png": png(2),
        "cat/.y.png": png(3),
        "empty/readme.md": b"",
    }
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


IDS = ["cat/broken.jpg", "cat/deep/er/a.png", "dog/img9.PNG", "dog/img10.png"]


def test_folder_ids_are_natural_and_nothing_else_is_read(pictures: Path) -> None:
    dataset = load_dataset(str(pictures))
    assert list(dataset.ids) == IDS
    assert list(dataset.targets) == [-1] * 4
    assert (dataset.name, dataset.class_names) == ("pictures", ())
    assert [value(dataset[i]) for i in (1, 2, 3, -1)] == [1, 9, 10, 10]
    with pytest.raises(IndexError):
        dataset[4]
    assert list(load_dataset(f"folder:{pictures}").ids) == IDS


def test_labelled_folder(pictures: Path) -> None:
    dataset = load_dataset(f"imagefolder:{pictures}")
    assert dataset.class_names == ("cat", "dog")
    assert list(dataset.targets) == [0, 0, 1, 1]
    assert dataset[2].target == 1
    named = load_dataset(f"imagefolder:{pictures}", class_names=["owl", "dog", "cat"])
    assert list(named.targets) == [2, 2, 1, 1]
    with pytest.raises(DiffcernError, match=r"cat.*class names are owl, dog"):
        load_dataset(f"imagefolder:{pictures}", class_names=["owl", "dog"])
    (pictures / "stray.png").write_bytes(png(5))
    with pytest.raises(DiffcernError, match=r"1 images lie directly.*stray\.png"):
        load_dataset(f"imagefolder:{pictures}")


def test_readable_yields_the_bad_file_as_an_error(pictures: Path) -> None:
    results = list(readable(ImageFolder(pictures)))
    assert isinstance(results[0], UnreadableImage)
    assert results[0].name == IDS[0]
    assert [r.id for r in results if isinstance(r, Sample)] == IDS[1:]


def test_a_folder_of_very_many_images_holds_no_paths(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = load_dataset(f"imagefolder:{pictures}")
    monkeypatch.setattr(names, "FEW", 3)
    many = load_dataset(f"imagefolder:{pictures}")
    assert isinstance(many.ids, names.Names)
    assert (list(many.ids), list(many.targets), many.class_names) == (IDS, list(few.targets), few.class_names)
    assert [many.file(i) for i in range(4)] == [pictures / name for name in IDS]
    assert [value(many[i]) for i in (1, 2, 3, -1)] == [1, 9, 10, 10]


def test_folder_follows_links_but_not_in_circles(pictures: Path) -> None:
    (pictures / "dog" / "up").symlink_to(pictures)
    (pictures / "bird").symlink_to(pictures / "dog")
    assert list(ImageFolder(pictures).ids) == ["bird/img9.PNG", "bird/img10.png", *IDS]


def test_single_file_and_max_side(pictures: Path) -> None:
    dataset = load_dataset(str(pictures / "dog" / "img9.PNG"), max_side=1)
    assert list(dataset.ids) == ["img9.PNG"]
    assert dataset[0].image.shape == (3, 1, 1)


def test_folder_errors_say_what_is_looked_for(pictures: Path) -> None:
    with pytest.raises(DiffcernError, match=r"no images.*\.jpg, \.png, .*how files begin"):
        load_dataset(str(pictures / "empty"))
    with pytest.raises(DiffcernError, match="no such file or folder"):
        load_dataset(f"folder:{pictures}/nowhere")
    with pytest.raises(DiffcernError, match=r"notes\.txt is not an image"):
        load_dataset(f"folder:{pictures}/cat/notes.txt")


def test_file_name_that_is_no_utf8_still_gives_a_usable_id(tmp_path: Path) -> None:
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")).write_bytes(png(4))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    dataset = ImageFolder(tmp_path)
    assert dataset.ids[0].encode()
    assert value(dataset[0]) == 4


# --- Parquet -----------------------------------------------------------------------------------------------


def table(values: Sequence[int], image: str = "image", features: dict | None = None, **columns: Sequence) -> pa.Table:
    images = [{"bytes": png(v), "path": None} for v in values]
    made = pa.table({image: pa.array(images, pa.struct({"bytes": pa.binary(), "path": pa.string()})), **columns})
    if features is None:
        return made
    return made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def written(path: Path, table: pa.Table, group: int = 2) -> Path:
    pq.write_table(table, path, row_group_size=group)
    return path


CLASS_LABEL = {"_type": "ClassLabel", "names": NAMES}


def test_parquet_without_metadata(tmp_path: Path) -> None:
    path = written(tmp_path / "test.parquet", table([5, 6, 7, 8, 9], label=[2, 0, 1, 2, None]))
    dataset = load_dataset(f"parquet:{path}")
    assert list(dataset.targets) == [2, 0, 1, 2, -1]
    assert list(dataset.ids) == ["0", "1", "2", "3", "4"]
    assert dataset.class_names == ("0", "1", "2")
    assert dataset.name == f"{tmp_path.name}/test"
    assert [value(dataset[i]) for i in (4, 0, 3, -1, 1, 2)] == [9, 5, 8, 9, 6, 7]  # across row groups
    assert [s.target for s in dataset] == [2, 0, 1, 2, -1]
    assert load_dataset(str(path), class_names=NAMES).class_names == tuple(NAMES)
    with pytest.raises(DiffcernError, match="label 2, but only 2 class names"):
        load_dataset(str(path), class_names=NAMES[:2])


def test_parquet_with_hugging_face_metadata(tmp_path: Path) -> None:
    features = {
        "picture_of_it": {"_type": "Image"},
        "coarse": {"_type": "Value", "dtype": "int64"},
        "kind": CLASS_LABEL,
    }
    made = table([1, 2], "picture_of_it", features, coarse=[9, 9], kind=[1, 0], id=[70, 71])
    path = written(tmp_path / "a.parquet", made)
    dataset = ParquetImages(path)
    assert dataset.class_names == tuple(NAMES)
    assert list(dataset.targets) == [1, 0]
    assert list(dataset.ids) == ["70", "71"]
    assert ParquetImages(path, class_names=["a", "b", "c"]).class_names == ("a", "b", "c")
    with pytest.raises(DiffcernError, match="names 3 classes, class_names 2"):
        ParquetImages(path, class_names=["a", "b"])


def test_imagenet_in_any_spelling_gets_the_predictors_names_and_ids(tmp_path: Path) -> None:
    from timm.data import ImageNetInfo

    names, ids = imagenet_labels()
    synonyms = ImageNetInfo().label_descriptions()  # "tench, Tinca tinca", as on the hub; "crane" stands twice
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": synonyms}}
    path = written(tmp_path / "a.parquet", table([1, 2], features=features, label=[134, 517]))
    dataset = load_dataset(f"parquet:{path}")
    assert (dataset.class_names, dataset.class_ids) == (names, ids)
    assert [dataset.class_ids[target] for target in dataset.targets] == ["n02012849", "n03126707"]
    other = ParquetImages(path, class_names=synonyms[::-1])
    assert (other.class_names[0], other.class_ids) == (synonyms[-1], ())
    few = ParquetImages(written(tmp_path / "b.parquet", table([1], label=[1])), class_names=["n01440764", "n01443537"])
    assert few.class_names == few.class_ids == ("n01440764", "n01443537")
    assert dataset.accepts is None


def test_parquet_of_plain_bytes_and_named_columns(tmp_path: Path) -> None:
    made = pa.table({"photo_a": [png(1)], "photo_b": [png(2)], "k": [0]})
    path = written(tmp_path / "a.parquet", made)
    dataset = ParquetImages(path, image_column="photo_b", label_column="k")
    assert (value(dataset[0]), dataset[0].target) == (2, 0)
    with pytest.raises(DiffcernError, match=r"no image column.*photo_a, photo_b, k"):
        ParquetImages(path)
    with pytest.raises(DiffcernError, match=r"no column 'kk'; it has photo_a, photo_b, k"):
        ParquetImages(path, image_column="photo_a", label_column="kk")


def test_unlabelled_parquet(tmp_path: Path) -> None:
    dataset = ParquetImages(written(tmp_path / "a.parquet", table([1, 2, 3])))
    assert list(dataset.targets) == [-1] * 3
    assert dataset.class_names == ()


def test_parquet_folder_and_pattern_in_order(tmp_path: Path) -> None:
    for part, values in enumerate([[1, 2, 3], [4, 5]]):
        written(tmp_path / f"train-{part:05d}-of-00002.parquet", table(values, label=[0] * len(values)))
    for dataset in (load_dataset(f"parquet:{tmp_path}"), load_dataset(f"{tmp_path}/train-*.parquet")):
        assert [value(dataset[i]) for i in range(5)] == [1, 2, 3, 4, 5]
        assert list(dataset.ids) == list("01234")
    written(tmp_path / "test-00000-of-00001.parquet", table([6], label=[1]))
    with pytest.raises(DiffcernError, match=r"several splits \(test, train\)"):
        load_dataset(f"parquet:{tmp_path}")
    assert len(load_dataset(f"parquet:{tmp_path}/train*.parquet")) == 5


def test_parquet_parts_must_have_the_same_columns(tmp_path: Path) -> None:
    written(tmp_path / "a.parquet", table([1], label=[0]))
    written(tmp_path / "b.parquet", table([1]))
    with pytest.raises(DiffcernError, match=r"b\.parquet has no column label; it has image"):
        ParquetImages(tmp_path)


def test_parquet_reads_a_row_group_once_and_keeps_to_its_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = ParquetImages(written(tmp_path / "a.parquet", table(range(6))))
    reads = []
    read = parquet._read
    monkeypatch.setattr(parquet, "_read", lambda *args: reads.append(args[-1]) or read(*args))
    for _ in range(2):
        assert [value(s) for s in dataset] == list(range(6))
    assert reads == [0, 1, 2]
    monkeypatch.setattr(parquet, "CACHE_BYTES", 0)
    copy = pickle.loads(pickle.dumps(dataset))  # as sent to a worker: without the cache
    assert [value(copy[i]) for i in (0, 1, 5, 0)] == [0, 1, 5, 0]
    assert reads == [0, 1, 2, 0, 2, 0]


def test_parquet_bad_rows_and_files(tmp_path: Path) -> None:
    made = pa.table({"image": [png(1), None, b"junk"], "id": ["a", "b", "c"]})
    results = list(readable(ParquetImages(written(tmp_path / "a.parquet", made))))
    assert [type(r) for r in results] == [Sample, UnreadableImage, UnreadableImage]
    assert [r.name for r in results[1:]] == ["b", "c"]
    assert "no image bytes" in results[1].reason

    data = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(data[: len(data) // 2])
    with pytest.raises(DiffcernError, match=r"cut\.parquet: truncated or not a Parquet file"):
        ParquetImages(tmp_path / "cut.parquet")
    with pytest.raises(DiffcernError, match=r"no \.parquet file at"):
        load_dataset(f"parquet:{tmp_path}/none.parquet")
    with pytest.raises(DiffcernError, match="no rows"):
        ParquetImages(written(tmp_path / "empty.parquet", table([])))
    with pytest.raises(DiffcernError, match="'x' occurs 2 times"):
        ParquetImages(written(tmp_path / "twice.parquet", table([1, 2, 3], id=["x", "y", "x"])))
    with pytest.raises(DiffcernError, match=r"'label' must hold integer labels, but holds 0\.5"):
        ParquetImages(written(tmp_path / "halves.parquet", table([1], label=[0.5])))


@needs_shared
@pytest.mark.parametrize(("name", "side"), [("cifar10", 32), ("mnist", 28)])
def test_shared_tables(name: str, side: int) -> None:
    dataset = load_dataset(f"parquet:{SHARED / name / 'test.parquet'}")
    assert len(dataset) == 10_000
    assert dataset.name == f"{name}/test"
    assert dataset.class_names == tuple("0123456789")
    assert dataset[9_999].image.shape == (3, side, side)
    assert set(subset(dataset, 20, 0).targets) == set(range(10))
    if name == "cifar10":  # its ids hold the class: rows of ids, targets and images belong together
        classes = sorted({i.split("/")[1] for i in dataset.ids})  # airplane ... truck, as CIFAR-10 counts them
        assert all(classes[t] == i.split("/")[1] for i, t in zip(dataset.ids, dataset.targets, strict=True))
    with pytest.raises(DiffcernError, match=r"several splits \(test, train\)"):
        load_dataset(f"parquet:{SHARED / name}")


# --- the hub, and names ------------------------------------------------------------------------------------


def test_hub_columns_are_found_from_the_features(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    rows = datasets.Dataset.from_dict(
        {"img": [{"bytes": png(v), "path": None} for v in (5, 6, 7)], "label": [2, 0, 1]}, features=features
    )
    asked = []

    def load(*args: object, **options: object) -> object:
        asked.append((*args, options))
        return rows

    monkeypatch.setattr(datasets, "load_dataset", load)
    dataset: Dataset = load_dataset("hf:uoft-cs/cifar10/plain:test[:3]")
    assert asked == [("uoft-cs/cifar10", "plain", {"split": "test[:3]", "streaming": False})]
    assert dataset.class_names == tuple(NAMES)
    assert (dataset.class_ids, dataset.accepts) == ((), None)
    assert list(dataset.targets) == [2, 0, 1]
    assert list(dataset.ids) == ["0", "1", "2"]
    assert [value(dataset[i]) for i in (2, 0, -1)] == [7, 5, 7]


def test_a_stream_gives_some_rows_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    values = list(range(30))
    rows = datasets.Dataset.from_dict(
        {"img": [{"bytes": png(v), "path": None} for v in values], "label": [v % 3 for v in values]}, features=features
    )
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **options: rows.to_iterable_dataset())
    dataset, again = (load_dataset("hf-stream:uoft-cs/cifar10:test:8") for _ in range(2))
    assert len(dataset) == 8
    seen = [value(dataset[i]) for i in range(8)]
    assert [v % 3 for v in seen] == list(dataset.targets)
    assert seen == [value(again[i]) for i in range(8)] != values[:8]
    assert dataset.class_names == tuple(NAMES)
    with pytest.raises(UsageError, match="names no number of images"):
        load_dataset("hf-stream:uoft-cs/cifar10:test")


def test_hub_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")

    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach 'a/b' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(DiffcernError, match=r"(?s)'a/b'.*split test.*Couldn't reach.*needs a network"):
        load_dataset("hf:a/b:test")


def test_unknown_names_list_what_exists() -> None:
    with pytest.raises(UsageError, match=r"Did you mean 'embedded:digits"):
        load_dataset("embeded:digits")
    with pytest.raises(
        UsageError, match=r"cifar-c:ROOT/CORRUPTION/SEVERITY.*imagefolder:PATH.*objectnet:ROOT.*parquet"
    ):
        load_dataset("cifar10")
    with pytest.raises(UsageError, match=r"'digits/train'"):
        load_dataset("embedded:digits/trian")
    with pytest.raises(UsageError, match=r"hf:OWNER/NAME\[/CONFIG\]:SPLIT"):
        load_dataset("hf:uoft-cs/cifar10")
    with pytest.raises(UsageError, match="own class names"):
        load_dataset("embedded:digits", class_names=NAMES)
    with pytest.raises(UsageError, match="form is folder:PATH"):
        load_dataset("folder:")
    with pytest.raises(DiffcernError, match="no such file or folder"):
        load_dataset("./nowhere")
