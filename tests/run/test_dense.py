"""A bench of masks or depths: what its records hold, that it continues as it would have gone on, what it refuses."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from diffcern.data import encode_png, load_dataset
from diffcern.data.base import VOID, Sample
from diffcern.data.maps import encode_depth, encode_mask, palette
from diffcern.data.scenes import Scenes
from diffcern.errors import UsageError
from diffcern.kinds import KINDS
from diffcern.predictors.native import NativePredictorConfig, native_predictor, save_predictor
from diffcern.priors.native import NativeConfig, native_prior
from diffcern.priors.spatial import Maps
from diffcern.report import summarise, write_report
from diffcern.run.bench import Bench
from diffcern.run.evaluate import evaluate
from diffcern.run.spec import parse_spec
from diffcern.run.truths import Truths
from diffcern.run.units import units
from diffcern.tasks import Depth, Segmentation
from diffcern.types import Inputs

CPU = torch.device("cpu")
TTA = {"steps": 1, "draws": 2, "optimizer": "sgd", "learning_rate": 0.1}
DDA = {"start": 200, "steps": 2, "weight": 0.1, "form": "estimate"}
CELLS = [("clean", 0), ("gaussian_noise", 3), ("drawing", 3)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """{task: {"predictor": folder, "prior": folder}} with random weights, for the scenes."""
    root, result = tmp_path_factory.mktemp("dense"), {}
    torch.manual_seed(0)
    for task in ("segmentation", "depth"):
        names = Scenes.mask_names if task == "segmentation" else ()
        config = NativePredictorConfig("small-unet", 64, names, (0.5,) * 3, (0.25,) * 3, 4, 1, task)
        save_predictor(native_predictor(config), config, root / task / "predictor")
        maps = Maps("segmentation", names) if names else Maps("depth", near=1.0, far=20.0)
        prior = native_prior(NativeConfig("dit", "x0", 16, 3, (), maps), width=16, depth=1, heads=2, patch=8)
        for weight in prior.denoiser.parameters():  # adaLN-Zero starts as the zero function
            weight.data.normal_(std=0.1)
        prior.save_pretrained(root / task / "prior")
        result[task] = {part: str(root / task / part) for part in ("predictor", "prior")}
    return result


def table_of(folders, task):
    entries = {
        "source": {"method": "source", "batch_size": 4},
        "bn-adapt": {"method": "bn-adapt", "protocol": "online", "batch_size": 4},
        "tent": {"method": "tent", "protocol": "online", "batch_size": 2},
        "diffusion-tta": {"method": "diffusion-tta", "options": TTA},
        "dda": {"method": "dda", "options": DDA},
    }
    if task == "depth":
        del entries["tent"]  # there is no entropy
    return {
        "name": f"tiny {task}",
        "data": {"dataset": "embedded:scenes", "count": 4},
        "models": {"task": task, **folders[task]},
        "shifts": {"names": [name for name, _ in CELLS], "severities": [3]},
        "entries": entries,
    }


@pytest.fixture
def table(folders):
    return table_of(folders, "segmentation")


@pytest.fixture(scope="module", params=["segmentation", "depth"])
def whole(request, folders, tmp_path_factory):
    """(specification, folder of an uninterrupted run)."""
    torch.set_num_threads(1)
    spec = parse_spec(table_of(folders, request.param))
    out = tmp_path_factory.mktemp(request.param) / "run"
    assert evaluate(spec, out, device=CPU) == (True, {})
    return spec, out


def files(folder: Path) -> dict[str, bytes]:
    """What must not depend on how a run went: records, answers and pictures of the data."""
    found = [*folder.glob("records/*"), *folder.glob("answers/*"), *folder.glob("*.parquet")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def rows(folder: Path, name: str = "records") -> list[dict]:
    return [row for path in sorted((folder / name).glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_records_hold_statistics_in_place_of_classes(whole):
    spec, out = whole
    records = rows(out)
    assert len(records) == len(spec.entries) * len(CELLS) * 4
    assert {(r["target"], r["prediction"], len(r["probabilities"])) for r in records} == {(-1, -1, 0)}
    size = 3 * len(Scenes.mask_names) if spec.models.task == "segmentation" else 5
    assert {len(r["statistics"]) for r in records} == {size}
    costs = {r["entry"]: (r["nfe_forward"], r["nfe_backward"], len(r["loss_trace"])) for r in records}
    assert costs["diffusion-tta"] == (2, 2, 1)
    assert costs["dda"][0] == 2
    assert json.loads((out / "plan.json").read_text())["task"] == spec.models.task
    names = list(Scenes.mask_names) if spec.models.task == "segmentation" else []
    assert json.loads((out / "classes.json").read_text()) == names


def test_statistics_are_of_the_samples_own_truth_under_every_shift(whole):
    """Recomputed from the data set: the truth of a drawn scene is that of the scene."""
    spec, out = whole
    bench = Bench(spec, CPU)
    data, source = load_dataset("embedded:scenes"), bench.method("source")
    for record in rows(out):
        if record["entry"] != "source":
            continue
        sample = data[data.ids.index(record["id"])]
        position = [bench.dataset.ids[i] for i in bench.order].index(record["id"])
        image = bench.image(position, record["shift"], record["severity"])
        if record["shift"] == "drawing":
            assert torch.equal(image, data.rendition(data.ids.index(record["id"]), "drawing", 3).image)
        output = source.step(source.init(), Inputs(image[None], [record["id"]]), 0)[0].output[0]
        # another batch size rounds differently, which may move a pixel from one class to the next
        expected, tolerance = bench.task.statistics(output, sample), {"segmentation": 3, "depth": 1e-3}
        assert record["statistics"] == pytest.approx(expected, abs=tolerance[spec.models.task])


@pytest.mark.slow
def test_interrupted_anywhere_continues_to_identical_files(whole, tmp_path):
    spec, out = whole

    class Interrupt(Exception):
        pass

    for stop in (1, 4, 9):

        def progress(done, total, what, stop=stop):
            if done == stop:
                raise Interrupt

        with pytest.raises(Interrupt):
            evaluate(spec, tmp_path / "again", device=CPU, progress=progress)
    unit = units(spec, 4)[2].name
    (tmp_path / "again" / "records" / f"{unit}.parquet").unlink()  # killed when its answers were written already
    assert (tmp_path / "again" / "answers" / f"{unit}.parquet").is_file()
    assert evaluate(spec, tmp_path / "again", device=CPU)[0]
    assert files(tmp_path / "again") == files(out)


def test_answers_and_truths_are_pictures_of_the_images_size(whole):
    spec, out = whole
    answers, truths = rows(out, "answers"), pq.read_table(out / "truths.parquet").to_pylist()
    assert len({(r["entry"], r["shift"], r["id"]) for r in answers}) == len(answers) == len(spec.entries) * 3 * 4
    data = load_dataset("embedded:scenes")
    for row in truths:
        sample, pixels = data[data.ids.index(row["id"])], np.asarray(Image.open(io.BytesIO(row["png"])))
        if spec.models.task == "segmentation":
            assert (pixels == sample.mask.numpy()).all()
        else:
            assert np.abs(pixels / 1000 - sample.depth.numpy()).max() < 6e-4  # millimetres
    masks = {r["id"]: np.asarray(Image.open(io.BytesIO(r["png"]))) for r in truths}
    records = {(r["entry"], r["shift"], r["id"]): r for r in rows(out)}
    for row in answers:
        pixels = np.asarray(Image.open(io.BytesIO(row["png"])))
        assert pixels.shape == (64, 64)
        if spec.models.task == "segmentation":
            record = records[row["entry"], row["shift"], row["id"]]
            agree = sum(record["statistics"][: len(Scenes.mask_names)])
            assert (pixels == masks[row["id"]]).sum() == agree


def test_the_report_of_such_a_run(whole):
    spec, out = whole
    others = KINDS[spec.models.task].metrics[1:]
    summary = summarise(out)
    assert len(summary) == len(spec.entries) * (len(CELLS) + 1) * (1 + len(others))
    page = write_report(out).read_text()
    assert page.count('<div class="maps">') == 2 * len(CELLS)
    assert "Other metrics" in page
    assert "Is confidence honest?" not in page
    assert "ccuracy per shift" not in page


def test_renditions_belong_to_the_scenes(models, tmp_path):
    """Of classes too; other data have none, which is said before anything is written."""
    table = {
        "name": "digits",
        "data": {"dataset": "embedded:digits", "count": 4},
        "models": {"predictor": models["predictor"]},
        "shifts": {"names": ["clean", "drawing"]},
        "entries": {"source": {"method": "source"}},
    }
    with pytest.raises(UsageError, match="drawing draws embedded:scenes otherwise, and cannot shift embedded:digits"):
        evaluate(parse_spec(table), tmp_path / "run", device=CPU)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("task", "what"), [("segmentation", "masks"), ("depth", "depth maps")])
def test_data_without_a_truth_for_the_task(folders, task, what):
    table = table_of(folders, task) | {"data": {"dataset": "embedded:digits", "count": 4}}
    table["shifts"] = {"names": ["clean"]}
    with pytest.raises(UsageError, match=f"embedded:digits has no {what}, which a bench of {task} needs"):
        Bench(parse_spec(table), CPU)


def write_masks(path, mask, sides=(16,)):
    shown = [{"image": encode_png(torch.rand(3, side, 16)), "mask": encode_mask(mask[:side])} for side in sides]
    pq.write_table(pa.Table.from_pylist([{"id": str(k), **row} for k, row in enumerate(shown)]), path)


def test_masks_whose_classes_are_not_named(table, tmp_path):
    """Named, they may be some of the predictor's, in another order."""
    mask = torch.zeros(16, 16, dtype=torch.long)
    mask[:, 8:], mask[:4] = 1, VOID
    write_masks(tmp_path / "data.parquet", mask)
    table["data"] = {"dataset": str(tmp_path / "data.parquet")}
    table["shifts"] = {"names": ["clean"]}
    with pytest.raises(UsageError, match=r"does not name the classes of its masks: add class_names = .* to \[data\]"):
        Bench(parse_spec(table), CPU)
    table["data"]["class_names"] = ["floor", "cube"]
    with pytest.raises(UsageError, match="floor"):
        Bench(parse_spec(table), CPU)
    table["models"]["class_map"] = {"floor": "ground"}
    bench = Bench(parse_spec(table), CPU)
    assert bench.task.class_names == ("ground", "cube")
    (record,) = bench.run(units(bench.spec, 1)[0]).records
    assert record.statistics[-2:] == [12 * 8, 12 * 8]  # true pixels of each, without void
    table["models"]["labels"] = ["ground"]
    with pytest.raises(UsageError, match="leave labels out"):
        Bench(parse_spec(table), CPU)


def test_images_of_different_sizes_are_answered_one_by_one(table, tmp_path):
    write_masks(tmp_path / "data.parquet", torch.zeros(16, 16, dtype=torch.long), sides=(16, 12))
    table["data"] = {"dataset": str(tmp_path / "data.parquet"), "class_names": ["ground", "cube"]}
    table["shifts"] = {"names": ["clean"]}
    table["entries"] = {"source": {"method": "source", "batch_size": 2}}
    bench = Bench(parse_spec(table), CPU)
    with pytest.raises(UsageError, match=r"different sizes.*set batch_size = 1"):
        bench.run(units(bench.spec, 2)[0])
    table["entries"]["source"]["batch_size"] = 1
    bench = Bench(parse_spec(table), CPU)
    records = bench.run(units(bench.spec, 2)[0]).records
    assert sorted(sum(record.statistics[-2:]) for record in records) == [12 * 16, 16 * 16]


def write_maps(path, task, maps, **columns):
    """A table of images of 16 x 16 with these masks or depths."""
    encode = encode_mask if task == "segmentation" else encode_depth
    name = "mask" if task == "segmentation" else "depth"
    rows = [{"id": str(k), "image": encode_png(torch.rand(3, 16, 16)), name: encode(m)} for k, m in enumerate(maps)]
    table = pa.Table.from_pylist(rows)
    for column, values in columns.items():
        table = table.append_column(column, pa.array(values))
    pq.write_table(table, path)
    return {"dataset": str(path), **({"class_names": ["ground", "cube"]} if name == "mask" else {})}


@pytest.mark.parametrize(
    ("task", "bad", "reason"),
    [
        ("segmentation", torch.full((16, 16), 7), "the mask of 1 holds [7], and there are 2 classes"),
        ("segmentation", torch.zeros(16, 9, dtype=torch.long), "has 16 x 16 pixels and its truth 9 x 16"),
        ("depth", torch.zeros(16, 16), "the depth of 1 is unknown (0) everywhere"),
    ],
)
def test_a_bad_truth_is_skipped_named_and_counted(folders, task, bad, reason, tmp_path):
    """Like an image that cannot be read: no method sees it, online ones neither."""
    good = torch.ones(16, 16) if task == "depth" else torch.ones(16, 16, dtype=torch.long)
    table = table_of(folders, task) | {"data": write_maps(tmp_path / "data.parquet", task, [good, bad, good])}
    table["shifts"] = {"names": ["clean", "gaussian_noise"], "severities": [3]}
    table["entries"] = {name: table["entries"][name] for name in ("source", "bn-adapt", "diffusion-tta")}
    spec = parse_spec(table)
    complete, skipped = evaluate(spec, tmp_path / "run", device=CPU)
    assert complete
    assert list(skipped) == ["1"]
    assert reason in skipped["1"]
    assert sorted(r["id"] for r in rows(tmp_path / "run")) == sorted("02" * 6)
    assert {r["id"] for r in pq.read_table(tmp_path / "run" / "truths.parquet").to_pylist()} == {"0", "2"}
    summary = summarise(tmp_path / "run")
    assert {row["n"] for row in summary} == {2}
    assert all(row["complete"] and list(row["skipped"]) == ["1"] for row in summary)
    assert reason[:20] in write_report(tmp_path / "run").read_text()
    assert evaluate(spec, tmp_path / "run", device=CPU) == (True, skipped)  # a resumed run still says so


def test_class_names_go_to_the_masks_where_there_are_labels_too(table, tmp_path):
    masks = [torch.ones(16, 16, dtype=torch.long)] * 3
    table["data"] = write_maps(tmp_path / "data.parquet", "segmentation", masks, label=[2, 0, 1])
    table["shifts"] = {"names": ["clean"]}
    bench = Bench(parse_spec(table), CPU)
    assert bench.task.class_names == ("ground", "cube")
    assert bench.dataset.class_names == ("0", "1", "2")
    assert bench.run(units(bench.spec, 3)[0]).records[0].statistics[-2:] == [0, 256]


class Counting(list):
    """Samples that count how often they are read."""

    reads = 0

    def __getitem__(self, index):
        self.reads += 1
        return super().__getitem__(index)


def test_truths_are_kept_as_far_as_there_is_room():
    mask = torch.zeros(4, 4, dtype=torch.long)
    data = Counting([Sample(str(k), torch.rand(3, 4, 4), -1, mask=mask) for k in range(3)])
    truths = Truths(data, Segmentation(("a", "b")), [], room=2 * mask.nbytes)
    for _ in range(3):
        assert [truths.sample(k).id for k in range(3)] == ["0", "1", "2"]
    assert data.reads == 2 + 3


def test_relative_depth_is_pictured_in_the_truths_metres():
    truth = torch.linspace(1, 4, 144).reshape(12, 12)
    sample = Sample("a", torch.rand(3, 12, 12), -1, depth=truth)
    truths = Truths([sample], Depth(metric=False), [], room=0)
    pixels = np.asarray(Image.open(io.BytesIO(truths.picture(0, 3 / truth - 0.5))))  # of unknown scale and shift
    assert np.abs(pixels / 1000 - truth.numpy()).max() < 2e-3  # millimetres, and least squares in float32


def test_samples_without_a_truth_have_no_statistics_and_no_picture():
    sample = Sample("a", torch.rand(3, 4, 4), -1)
    truths = Truths([sample], Segmentation(("a", "b")), [], room=0)
    (judged,) = truths.judge([0], torch.rand(1, 2, 4, 4), None)
    assert judged.statistics == []
    assert truths.picture(0, torch.rand(2, 4, 4)) is None


def test_colours_of_a_palette_differ():
    colours = palette()
    assert len(colours) == 256
    assert len(set(colours[:64])) == 64
    assert colours[VOID] == (255, 255, 255) not in colours[:VOID]
