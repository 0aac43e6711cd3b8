"""Published test sets, written in their layouts: every image's colour says which class it must come back as."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffcern.data import Dataset, load_dataset, subset
from diffcern.data.corrupted import CIFAR10, CIFAR100
from diffcern.errors import DiffcernError, UsageError
from diffcern.labels import imagenet_labels

NAMES, IDS = imagenet_labels()
SOME = [0, 1, 2, 10, 100, 134, 517, 999]  # of ImageNet's classes; 134 and 517 are both called "crane"
BOTH_A_AND_R = [IDS.index("n01498041"), IDS.index("n02226429"), IDS.index("n12267677")]  # stingray, grasshopper, acorn


def write(path: Path, code: int, size: tuple[int, int] = (4, 4)) -> None:
    """An image of one colour that stands for a number, lossless whatever its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    Image.new("RGB", size, (code // 256, code % 256, 77)).save(buffer, format="PNG")
    path.write_bytes(buffer.getvalue())


def codes(dataset: Dataset) -> list[int]:
    """The numbers that `write` was given, in the data set's order."""
    pixels = [(dataset[row].image * 255).round().int() for row in range(len(dataset))]
    assert all((image == image[:, :1, :1]).all() for image in pixels)
    return [int(image[0, 0, 0]) * 256 + int(image[1, 0, 0]) for image in pixels]


def by_id(root: Path, classes: Iterable[int], file: str = "ILSVRC2012_val_{:08d}.JPEG") -> Path:
    for code in classes:
        write(root / IDS[code] / file.format(code + 1), code)
    return root


# --- ImageNet by WordNet id and by number --------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["imagenet", "imagenet-sketch"])
def test_folders_by_id_are_classes_of_the_whole_list(tmp_path: Path, variant: str) -> None:
    dataset = load_dataset(f"{variant}:{by_id(tmp_path, reversed(SOME))}")
    assert codes(dataset) == list(dataset.targets) == [dataset[row].target for row in range(8)] == SOME
    assert (dataset.name, dataset.class_names, dataset.class_ids) == (variant, NAMES, IDS)
    assert dataset.accepts is None
    assert dataset.ids[0] == "n01440764/ILSVRC2012_val_00000001.JPEG"
    assert dataset[-1].id == dataset.ids[-1]
    with pytest.raises(IndexError):
        dataset[8]
    assert subset(dataset, 3, 0).class_ids == IDS


@pytest.mark.parametrize("variant", ["imagenet-a", "imagenet-r"])
def test_200_classes_keep_their_names_and_ids(tmp_path: Path, variant: str) -> None:
    (tmp_path / "README.txt").write_text("as in the archives")
    dataset = load_dataset(f"{variant}:{by_id(tmp_path, BOTH_A_AND_R)}")
    assert len(dataset.class_names) == len(dataset.class_ids) == 200
    assert [IDS[code] for code in codes(dataset)] == [dataset.class_ids[target] for target in dataset.targets]
    assert [NAMES[code] for code in codes(dataset)] == [dataset.class_names[target] for target in dataset.targets]
    assert list(dataset.class_ids) == sorted(dataset.class_ids)
    assert set(dataset.class_ids) < set(IDS)


def test_a_and_r_are_not_mistaken_for_each_other(tmp_path: Path) -> None:
    by_id(tmp_path, [1])  # goldfish: of ImageNet-R only
    assert load_dataset(f"imagenet-r:{tmp_path}").class_names[0] == "goldfish"
    with pytest.raises(DiffcernError, match=r"no class of imagenet-a: n01443537; .* called n01498041, n01531178"):
        load_dataset(f"imagenet-a:{tmp_path}")


def test_imagenet_v2_folders_are_numbers_not_strings(tmp_path: Path) -> None:
    for code in SOME:
        write(tmp_path / str(code) / "0af3f1b55de791c4144e2fb6d7dfe96dfc22d3fc.jpeg", code)
    dataset = load_dataset(f"imagenet-v2:{tmp_path}")
    assert codes(dataset) == list(dataset.targets)
    assert sorted(dataset.targets) == SOME
    assert dataset.class_ids == IDS
    sorted_as_strings = load_dataset(f"imagefolder:{tmp_path}")
    assert sorted_as_strings.class_names[:4] == ("0", "1", "10", "100")
    assert codes(sorted_as_strings) != list(sorted_as_strings.targets)  # what must not happen above


def test_folders_of_another_layout_are_refused(tmp_path: Path) -> None:
    by_id(tmp_path / "ids", [3])
    write(tmp_path / "numbers" / "7" / "a.jpeg", 7)
    write(tmp_path / "numbers" / "1000" / "a.jpeg", 1000)
    with pytest.raises(DiffcernError, match=r"no class of imagenet-v2: n01491361; .* called 0, 1, 2"):
        load_dataset(f"imagenet-v2:{tmp_path / 'ids'}")
    with pytest.raises(DiffcernError, match=r"no class of imagenet-v2: 1000;"):
        load_dataset(f"imagenet-v2:{tmp_path / 'numbers'}")
    with pytest.raises(DiffcernError, match=r"no class of imagenet: 1000, 7; .* called n01440764"):
        load_dataset(f"imagenet:{tmp_path / 'numbers'}")
    with pytest.raises(DiffcernError, match=r"no class of imagenet: ids, numbers;.*Give the folder that holds them"):
        load_dataset(f"imagenet:{tmp_path}")
    with pytest.raises(UsageError, match="own class names"):
        load_dataset(f"imagenet:{tmp_path / 'ids'}", class_names=NAMES)
    with pytest.raises(UsageError, match=r"form is imagenet-v2:ROOT"):
        load_dataset("imagenet-v2:")


def test_a_plain_folder_of_ids_knows_its_ids(tmp_path: Path) -> None:
    assert load_dataset(f"imagefolder:{by_id(tmp_path, [5, 4])}").class_ids == (IDS[4], IDS[5])
    write(tmp_path / "tench" / "a.png", 0)
    assert load_dataset(f"imagefolder:{tmp_path}").class_ids == ()


# --- ImageNet-C ----------------------------------------------------------------------------------------------


@pytest.fixture
def imagenet_c(tmp_path: Path) -> Path:
    root = tmp_path / "ImageNet-C"
    for corruption, severities in {"fog": "135", "frost": "1"}.items():
        for severity in severities:
            by_id(root / corruption / severity, SOME)
    (root / "zips").mkdir()
    return root


def test_imagenet_c_has_the_ids_of_the_validation_images(imagenet_c: Path, tmp_path: Path) -> None:
    dataset = load_dataset(f"imagenet-c:{imagenet_c}/fog/3")
    assert codes(dataset) == list(dataset.targets) == SOME
    assert (dataset.name, dataset.class_ids) == ("imagenet-c/fog/3", IDS)
    assert dataset.ids == load_dataset(f"imagenet-c:{imagenet_c}/frost/1/").ids
    assert dataset.ids == load_dataset(f"imagenet:{by_id(tmp_path / 'val', SOME)}").ids


def test_imagenet_c_lists_what_is_there(imagenet_c: Path) -> None:
    with pytest.raises(UsageError, match=r"ImageNet-C: unknown corruption 'fogg'.*'fog'.*Known: fog, frost\."):
        load_dataset(f"imagenet-c:{imagenet_c}/fogg/1")
    with pytest.raises(UsageError, match=r"fog: unknown severity '2'.*Known: 1, 3, 5\..*ROOT/CORRUPTION/SEVERITY"):
        load_dataset(f"imagenet-c:{imagenet_c}/fog/2")
    with pytest.raises(UsageError, match=r"ROOT/CORRUPTION/SEVERITY"):
        load_dataset(f"imagenet-c:{imagenet_c}/fog")
    with pytest.raises(DiffcernError, match=r"no such folder: .*nowhere; give ROOT/CORRUPTION/SEVERITY"):
        load_dataset(f"imagenet-c:{imagenet_c}/nowhere/fog/1")


# --- CIFAR-C -------------------------------------------------------------------------------------------------


def write_cifar(root: Path, labels: np.ndarray, corruption: str = "fog") -> Path:
    """Rows ordered by severity; the channels of an image are its label, its severity and its row."""
    images = np.zeros((5, len(labels), 32, 32, 3), np.uint8)
    images[..., 0] = labels[None, :, None, None]
    images[..., 1] = np.arange(1, 6)[:, None, None, None]
    images[..., 2] = np.arange(len(labels))[None, :, None, None]
    images[:, :, 0, :, :] = 255  # the top row, lest height and width be swapped
    root.mkdir(exist_ok=True)
    np.save(root / f"{corruption}.npy", images.reshape(-1, 32, 32, 3))
    np.save(root / "labels.npy", np.tile(labels, 5))
    return root


@pytest.mark.parametrize(("count", "names"), [(10, CIFAR10), (100, CIFAR100)])
def test_cifar_c_rows_are_ordered_by_severity(tmp_path: Path, count: int, names: tuple[str, ...]) -> None:
    labels = np.random.default_rng(0).permutation(np.arange(count).repeat(2))
    write_cifar(tmp_path, labels)
    for severity in (1, 4, 5):
        dataset = load_dataset(f"cifar-c:{tmp_path}/fog/{severity}")
        assert (dataset.name, dataset.class_names) == (f"cifar{count}-c/fog/{severity}", names)
        assert (dataset.class_ids, dataset.accepts) == ((), None)
        assert list(dataset.targets) == labels.tolist()
        for row in (0, 7, -1):
            sample = dataset[row]
            assert sample.image.shape == (3, 32, 32)
            assert sample.image.dtype == torch.float32
            assert bool((sample.image[:, 0] == 1).all())
            inside = (sample.image[:, 1:] * 255).round()
            assert bool((inside == inside[:, :1, :1]).all())
            expected = [sample.target, severity, range(len(labels))[row]]
            assert inside[:, 0, 0].tolist() == expected
            assert int(sample.id) == expected[2]
    assert len(dataset) == 2 * count
    assert len(set(dataset.ids)) == 2 * count
    with pytest.raises(IndexError):
        dataset[2 * count]


def test_cifar_class_names_are_as_published() -> None:
    assert list(CIFAR100) == sorted(set(CIFAR100))
    assert (len(CIFAR100), CIFAR100[1], CIFAR100[-1]) == (100, "aquarium_fish", "worm")
    assert list(CIFAR10) == sorted(set(CIFAR10))


def test_cifar_c_of_other_classes_needs_names(tmp_path: Path) -> None:
    write_cifar(tmp_path, np.array([0, 2, 1, 2]))
    with pytest.raises(DiffcernError, match=r"3 distinct labels.*give class_names"):
        load_dataset(f"cifar-c:{tmp_path}/fog/1")
    assert load_dataset(f"cifar-c:{tmp_path}/fog/1", class_names=["a", "b", "c"]).class_names == ("a", "b", "c")
    with pytest.raises(DiffcernError, match="labels from 0 to 2, but 2 class names"):
        load_dataset(f"cifar-c:{tmp_path}/fog/1", class_names=["a", "b"])


def test_cifar_c_stays_on_disk(tmp_path: Path) -> None:
    dataset = load_dataset(f"cifar-c:{write_cifar(tmp_path, np.arange(10))}/fog/2")
    assert len(pickle.dumps(dataset)) < 2000  # 150,000 bytes of pixels
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[3].image, dataset[3].image)


def test_cifar_c_errors(tmp_path: Path) -> None:
    labels = np.arange(10)
    root = write_cifar(tmp_path / "c", labels, "frost")
    write_cifar(root, labels)
    with pytest.raises(UsageError, match=r"unknown corruption 'labels'.*Known: fog, frost\."):
        load_dataset(f"cifar-c:{root}/labels/1")
    with pytest.raises(UsageError, match=r"unknown severity '0'.*Known: 1, 2, 3, 4, 5\."):
        load_dataset(f"cifar-c:{root}/fog/0")
    np.save(root / "labels.npy", labels.repeat(5))  # every image at five severities, then the next
    with pytest.raises(DiffcernError, match=r"labels\.npy does not repeat.*severity first"):
        load_dataset(f"cifar-c:{root}/fog/1")
    np.save(root / "labels.npy", labels)
    with pytest.raises(DiffcernError, match=r"labels\.npy holds int64 \[10\], not one integer.*50 images of fog\.npy"):
        load_dataset(f"cifar-c:{root}/fog/1")
    (root / "labels.npy").unlink()
    with pytest.raises(DiffcernError, match=r"no such file: .*labels\.npy"):
        load_dataset(f"cifar-c:{root}/fog/1")
    np.save(root / "fog.npy", np.zeros((50, 3, 32, 32), np.float32))
    np.save(root / "labels.npy", np.tile(labels, 5))
    with pytest.raises(DiffcernError, match=r"fog\.npy holds float32 \[50, 3, 32, 32\]; CIFAR-C holds uint8"):
        load_dataset(f"cifar-c:{root}/fog/1")
    data = (root / "frost.npy").read_bytes()
    (root / "frost.npy").write_bytes(data[: len(data) // 2])
    with pytest.raises(DiffcernError, match=r"cannot read .*frost\.npy: truncated"):
        load_dataset(f"cifar-c:{root}/frost/1")
    np.save(root / "fog.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DiffcernError, match=r"cannot read .*fog\.npy"):
        load_dataset(f"cifar-c:{root}/fog/1")


# --- ObjectNet -----------------------------------------------------------------------------------------------

FOLDERS = {  # not in alphabetical order, and folders that do not sort as their labels do, as published
    "winter_glove": "Winter glove",
    "chair": "Chair",
    "squeegee": "Squeegee",
    "full_sized_towel": "Bath towel",
    "still_camera": "Still Camera",
    "air_freshener": "Air freshener",
}
OVERLAP = {
    "Bath towel": "bath towel",
    "Chair": "barber chair; folding chair; rocking chair, rocker",
    "Still Camera": "Polaroid camera, Polaroid Land camera; reflex camera",
    "Winter glove": "mitten",
}
ACCEPTED = {  # from WordNet, not by way of the mappings
    "Bath towel": ["n02808304"],
    "Chair": ["n02791124", "n03376595", "n04099969"],
    "Still Camera": ["n03976467", "n04069434"],
    "Winter glove": ["n03775071"],
}


@pytest.fixture
def objectnet(tmp_path: Path) -> Path:
    """The inside of an image has a colour for its folder; the border is red."""
    root = tmp_path / "objectnet-1.0"
    for code, folder in enumerate(FOLDERS):
        inside = Image.new("RGB", (16, 10), (0, code, 77))
        image = Image.new("RGB", (20, 14), (255, 0, 0))
        image.paste(inside, (2, 2))
        path = root / "images" / folder / f"{code:015x}.png"
        path.parent.mkdir(parents=True)
        image.save(path)
    write_mappings(root, FOLDERS, OVERLAP)
    return root


def write_mappings(root: Path, folders: dict[str, str], overlap: dict[str, str]) -> None:
    (root / "mappings").mkdir(exist_ok=True)
    (root / "mappings" / "folder_to_objectnet_label.json").write_text(json.dumps(folders))
    (root / "mappings" / "objectnet_to_imagenet_1k.json").write_text(json.dumps(overlap))


def test_objectnet_keeps_the_overlap_and_says_what_is_right(objectnet: Path) -> None:
    dataset = load_dataset(f"objectnet:{objectnet}")
    assert dataset.class_names == ("Chair", "Bath towel", "Still Camera", "Winter glove")  # ordered by folder
    assert (dataset.name, dataset.class_ids) == ("objectnet", ())
    labels = [list(FOLDERS.values())[code] for code in codes(dataset)]  # codes: no red is left at the edges
    assert labels == [dataset.class_names[target] for target in dataset.targets] == list(dataset.class_names)
    assert [list(accepted) for accepted in dataset.accepts] == [ACCEPTED[name] for name in dataset.class_names]
    assert dataset[0].image.shape == (3, 10, 16)
    assert dataset.ids[0] == "chair/000000000000001.png"
    assert subset(dataset, 2, 0).accepts == dataset.accepts


def test_objectnet_is_cropped_before_it_is_shrunk(objectnet: Path) -> None:
    dataset = load_dataset(f"objectnet:{objectnet}", max_side=3)
    assert dataset[0].image.shape == (3, 2, 3)
    assert codes(dataset) == codes(load_dataset(f"objectnet:{objectnet}"))


def test_objectnet_errors(objectnet: Path) -> None:
    write_mappings(objectnet, FOLDERS, {**OVERLAP, "Sofa": "studio couch, day bed"})
    with pytest.raises(DiffcernError, match=r"speaks of classes that folder_to_objectnet_label\.json.*Sofa"):
        load_dataset(f"objectnet:{objectnet}")
    for name in ("crane", "bath tovel"):  # two classes, none
        write_mappings(objectnet, FOLDERS, {**OVERLAP, "Chair": f"barber chair; {name}"})
        with pytest.raises(DiffcernError, match=f"'Chair' names no single ImageNet class: {name}"):
            load_dataset(f"objectnet:{objectnet}")
    write_mappings(objectnet, FOLDERS, OVERLAP)
    write(objectnet / "images" / "chiar" / "a.png", 1)
    with pytest.raises(DiffcernError, match="no class of objectnet: chiar"):
        load_dataset(f"objectnet:{objectnet}")
    (objectnet / "mappings" / "objectnet_to_imagenet_1k.json").write_text("[1]")
    with pytest.raises(DiffcernError, match="must map names to names"):
        load_dataset(f"objectnet:{objectnet}")
    (objectnet / "mappings" / "objectnet_to_imagenet_1k.json").write_text("{")
    with pytest.raises(DiffcernError, match="is not JSON"):
        load_dataset(f"objectnet:{objectnet}")
    with pytest.raises(DiffcernError, match=r"cannot read .*folder_to_objectnet_label\.json: No such file.*images/"):
        load_dataset(f"objectnet:{objectnet}/images")
