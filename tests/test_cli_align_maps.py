"""`diffcern align --task segmentation` and `--task depth` as a user runs them."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from diffcern.data import encode_png
from diffcern.data.maps import encode_depth, encode_mask
from diffcern.predictors import load_predictor
from diffcern.predictors.native import NativePredictorConfig, native_predictor, save_predictor
from diffcern.priors.native import NativeConfig, native_prior
from diffcern.priors.spatial import Maps

NAMES = ("floor", "wall", "cube")
SHORT = ["--set", "steps=2", "--generator-steps", "2", "--epochs", "1", "--batch-size", "2", "--device", "cpu"]


@pytest.fixture
def table(tmp_path):
    """Three images of 24 x 16 pixels with masks, whose classes it does not name ("1" is void), and depths."""
    rows = []
    for k in range(3):
        mask = torch.zeros(16, 24, dtype=torch.long)
        mask[:2], mask[8:], mask[2:6, k : k + 6] = 1, 2, 3
        depth = torch.linspace(6 + k, 1, 16)[:, None].repeat(1, 24)
        image = torch.rand(3, 16, 24, generator=torch.Generator().manual_seed(k))
        rows.append({"image": encode_png(image), "mask": encode_mask(mask), "depth_mm": encode_depth(depth)})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rooms.parquet")
    return tmp_path / "rooms.parquet"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A predictor and a prior for each task."""
    place = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    for task, names, maps in (
        ("segmentation", NAMES, Maps("segmentation", ("cube", "floor", "wall"))),
        ("depth", (), Maps("depth", near=1.0, far=8.0)),
    ):
        config = NativePredictorConfig("small-unet", 16, names, (0.5,) * 3, (0.25,) * 3, 4, 1, task)
        save_predictor(native_predictor(config), config, place / f"{task}-predictor")
        prior = native_prior(NativeConfig("dit", "x0", 8, 3, (), maps), width=16, depth=1, heads=2, patch=4)
        for weight in prior.denoiser.parameters():
            weight.data += 0.1 * torch.randn_like(weight)
        prior.save_pretrained(place / f"{task}-prior")
    return place


def models(folder, task):
    named = ["--predictor", folder / f"{task}-predictor", "--prior", folder / "segmentation-prior"]  # any purifies
    return [*named, "--task", task]


def arguments(folder, task, table):
    command = [*models(folder, task), "--generator", folder / f"{task}-prior", "--maps", table, "--count", 4, *SHORT]
    return command if task == "depth" else [*command, "--class-names", "wall,void,floor,cube"]


@pytest.mark.parametrize("task", ["segmentation", "depth"])
def test_from_the_command_to_an_answer(cli, folder, table, tmp_path, task):
    out, command = tmp_path / "out", arguments(folder, task, table)
    code, _, err = cli("align", *command, "-o", out)
    assert code == 0, err
    assert "validation loss" in err
    kept = json.loads((out / "align.json").read_text())["maps"]
    assert (kept["task"], kept["data"], kept["count"], kept["size"]) == (task, str(table), 4, [16, 24])
    if task == "segmentation":
        with Image.open(out / "masks" / "000000.png") as mask:
            assert mask.mode == "P"
            assert mask.getpixel((12, 15)) == NAMES.index("floor")
            assert mask.getpixel((12, 0)) == 255
    answer = ["adapt", table, *models(folder, task), "--method", "sda", "--set", f"aligned={out}"]
    code, _, err = cli(*answer, "--out", tmp_path / "answers.json")
    assert code == 0, err
    assert len(json.loads((tmp_path / "answers.json").read_text())) == 3
    adapted = load_predictor(str(out / "predictor"))
    assert (adapted.task, adapted.class_names) == (task, NAMES if task == "segmentation" else ())
    table.unlink()
    code, _, err = cli("align", *command, "-o", out)  # the folder holds its maps
    assert code == 0, err
    assert "validation loss" not in err  # nothing was done again
    code, _, err = cli("align", *command, "-o", out, "--seed", 1)
    assert code == 1
    assert "rooms.parquet" in err  # other maps would have to be chosen


def test_ctrl_c(cli, folder, table, tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("diffcern.train.finetune_predictor.finetune", interrupted)
        code, _, err = cli("align", *arguments(folder, "depth", table), "-o", tmp_path / "out")
    assert code == 130
    assert "run the same command to continue" in err
    assert cli("align", *arguments(folder, "depth", table), "-o", tmp_path / "out")[0] == 0


def test_what_does_not_fit(cli, folder, table, tmp_path):
    digits = ["--predictor", "embedded:digits", "--prior", "embedded:digits", "--generator", "embedded:digits"]
    both = [*models(folder, "depth"), "--generator", folder / "depth-prior"]
    segmenting = [*models(folder, "segmentation"), "--generator", folder / "segmentation-prior"]
    told = ["--maps", table, "--count", 2]
    for command, message in (
        (digits, "give --per-class"),
        ([*digits, "--per-class", 1, "--count", 2], "--count and --class-names are for --task segmentation or depth"),
        ([*digits, "--task", "flow"], "--task is one of classification, segmentation, depth"),
        ([*digits, *told, "--task", "depth"], "is for classification, and this run for depth"),
        ([*both[:4], *both[6:], "--per-class", 1], "is for depth, and this run for classification"),
        ([*both, "--count", 2], "give --maps DATASET and --count"),
        ([*both, "--maps", table], "give --maps DATASET and --count"),
        ([*both, *told, "--per-class", 1], "as many as --count"),
        ([*both, *told, "--prompt", "a {}"], "leave --prompt and --captions out"),
        ([*both, *told, "--recipe", "paper"], "--recipe is one of small for depth"),
        ([*both, *told, "--method", "gda"], "depth needs entropy=0"),
        ([*both, "--maps", "embedded:digits", "--count", 2], "has no depths"),
        ([*segmenting, *told], "give --class-names"),
        ([*segmenting[:-1], folder / "depth-prior", *told], "cannot draw what the predictor answers"),
    ):
        code, _, err = cli("align", *command, "-o", tmp_path / "out")
        assert code == 2, (command, err)
        assert message in " ".join(err.split()), err
    assert not (tmp_path / "out").exists()
