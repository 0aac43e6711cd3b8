"""`diffcern adapt --task segmentation` and `--task depth`: files that other programs read, and pictures to look at."""

import json
from pathlib import PurePosixPath

import numpy as np
import pytest
import torch
from PIL import Image

from diffcern.data import decode, encode_png, load_dataset
from diffcern.predictors import load_predictor
from diffcern.predictors.native import NativePredictorConfig, native_predictor, save_predictor
from diffcern.priors.native import NativeConfig, native_prior
from diffcern.priors.spatial import Maps
from diffcern.run.maps import picture_names

SCENES = load_dataset("embedded:scenes/validation")


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images" / "inside"
    folder.mkdir(parents=True)
    for index, size in enumerate([(32, 32), (24, 40), (32, 32)]):  # a predictor of 32 pixels, and any image
        image = torch.nn.functional.interpolate(SCENES[index].image[None], size, mode="bilinear")[0]
        (folder / f"{index}.png").write_bytes(encode_png(image))
    (folder / "broken.png").write_bytes(b"no image")
    return tmp_path / "images"


def models(folder, task):
    torch.manual_seed(0)
    names = SCENES.mask_names if task == "segmentation" else ()
    config = NativePredictorConfig("small-unet", 32, names, (0.5,) * 3, (0.25,) * 3, 4, 1, task)
    save_predictor(native_predictor(config), config, folder / "predictor")
    maps = Maps("segmentation", names) if task == "segmentation" else Maps("depth", near=1.0, far=12.0)
    prior = native_prior(NativeConfig("dit", "x0", 8, 3, (), maps), width=16, depth=1, heads=2, patch=4)
    for weight in prior.denoiser.parameters():
        weight.data += 0.05 * torch.randn_like(weight)
    prior.save_pretrained(folder / "prior")
    return ["--predictor", str(folder / "predictor"), "--prior", str(folder / "prior"), "--task", task]


def test_masks_have_a_palette_and_the_size_of_their_image(cli, images, tmp_path):
    named = models(tmp_path, "segmentation")
    command = ["adapt", images, *named, "--set", "draws=4", "--set", "steps=2", "--out", tmp_path / "out.json"]
    code, _, err = cli(*command)
    assert code == 0, err
    rows = json.loads((tmp_path / "out.json").read_text())
    assert [row["file"] for row in rows if not row["error"]] == [f"inside/{i}.png" for i in range(3)]
    assert "not an image" in next(row["error"] for row in rows if row["error"])
    mask = Image.open(tmp_path / "out" / "inside" / "1.png")
    assert mask.mode == "P"
    assert mask.size == (40, 24)
    with Image.open(images / "inside" / "1.png") as image, Image.open(tmp_path / "out/inside/1-overlay.png") as overlay:
        drawn = np.asarray(image).astype(float) / 2 + np.asarray(mask.convert("RGB")).astype(float) / 2
        assert np.abs(np.asarray(overlay) - drawn).max() <= 1  # rounded to 8 bits
    before = (tmp_path / "out" / "inside" / "0.png").read_bytes()
    assert cli(*command)[0] != 0  # nothing is overwritten unasked
    assert cli(*command, "--overwrite")[0] == 0
    assert (tmp_path / "out" / "inside" / "0.png").read_bytes() == before


def test_source_writes_the_predictors_own_answer(cli, images, tmp_path):
    named = models(tmp_path, "segmentation")
    assert cli("adapt", images, *named, "--method", "source", "--out", tmp_path / "o.csv")[0] == 0
    image = decode(images / "inside" / "0.png", "0")
    with torch.no_grad():
        expected = load_predictor(str(tmp_path / "predictor"))(image[None]).argmax(1)[0]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "o" / "inside" / "0.png")), expected.numpy())


def test_depth_is_in_millimetres(cli, images, tmp_path):
    named = models(tmp_path, "depth")
    code, _, err = cli("adapt", images, *named, "--set", "draws=4", "--set", "steps=2", "--out", tmp_path / "out.json")
    assert code == 0, err
    with Image.open(tmp_path / "out" / "inside" / "0.png") as depth:
        assert depth.mode.startswith("I;16")
        assert 100 < np.median(np.asarray(depth)) < 10_000  # an untrained network's exp(0), about a metre
    with Image.open(tmp_path / "out" / "inside" / "0-preview.png") as preview:
        assert preview.mode == "RGB"


def test_a_predictor_for_another_task(cli, images, tmp_path):
    named = models(tmp_path, "depth")
    code, _, err = cli("adapt", images, *named[:-1], "segmentation", "--out", tmp_path / "o.csv")
    assert code == 2
    assert "is for depth, and this run for segmentation" in " ".join(err.split())


def test_images_are_not_overwritten_by_their_maps(cli, images, tmp_path):
    before = (images / "inside" / "0.png").read_bytes()
    named = models(tmp_path, "segmentation")
    for out in (tmp_path / "images.csv", images / "inside.csv"):
        code, _, err = cli("adapt", images, *named, "--out", out)
        assert code == 2
        assert "where the images are" in " ".join(err.split())
    assert (images / "inside" / "0.png").read_bytes() == before


def test_other_files_are_not_overwritten_by_maps(cli, images, tmp_path):
    """A folder beside the table that this command did not make may be anybody's: true masks are called so."""
    named = models(tmp_path, "segmentation")
    truth = tmp_path / "masks" / "inside" / "0.png"
    truth.parent.mkdir(parents=True)
    truth.write_bytes(b"drawn by hand")
    command = ["adapt", images, *named[:2], *named[4:], "--method", "source", "--out", tmp_path / "masks.parquet"]
    code, _, err = cli(*command)
    assert code == 1
    assert "masks, which holds files" in " ".join(err.split())
    assert truth.read_bytes() == b"drawn by hand"
    truth.unlink()
    truth.parent.rmdir()
    assert cli(*command)[0] == 0
    assert cli(*command, "--overwrite")[0] == 0  # its own


def test_no_picture_is_called_like_a_map(cli, images, tmp_path):
    """An image "0-overlay.png" has a map of that name, which the picture of "0.png" must not replace."""
    (images / "inside" / "0-overlay.png").write_bytes((images / "inside" / "1.png").read_bytes())
    named = models(tmp_path, "segmentation")
    assert cli("adapt", images, *named, "--method", "source", "--out", tmp_path / "o.json")[0] == 0
    rows = [row for row in json.loads((tmp_path / "o.json").read_text()) if not row["error"]]
    files = [row["file"] for row in rows] + [f"inside/{row['picture']}" for row in rows]
    assert len(set(files)) == len(files) == 8
    assert {str(path.relative_to(tmp_path / "o")) for path in (tmp_path / "o").rglob("*.png")} == set(files)
    for row in rows:
        assert Image.open(tmp_path / "o" / row["file"]).mode == "P"
        assert Image.open(tmp_path / "o" / "inside" / row["picture"]).mode == "RGB"


def test_pictures_have_names_of_their_own():
    names = {name: PurePosixPath(f"{name}.png") for name in ("a", "a-overlay", "b/a", "a-overlay-overlay")}
    assert {name: str(path) for name, path in picture_names(names, "overlay").items()} == {
        "a": "a-overlay-overlay-overlay.png",
        "a-overlay": "a-overlay-overlay-overlay-overlay.png",
        "b/a": "b/a-overlay.png",
        "a-overlay-overlay": "a-overlay-overlay-overlay-overlay-overlay.png",
    }


@pytest.mark.parametrize("labels", [(), ("--labels", "cat,dog")])
def test_a_prior_that_reads_maps_classifies_nothing(cli, images, tmp_path, labels):
    models(tmp_path, "segmentation")
    code, _, err = cli("classify", images, "--prior", tmp_path / "prior", *labels)
    assert code == 1
    assert "reads maps of segmentation, and knows no classes of images" in " ".join(err.split())
