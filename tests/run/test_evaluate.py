"""A bench continues after a kill at any moment, and shards merge into one run, with identical records."""

import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pyarrow.parquet as pq
import pytest
import tomli_w
import torch

from diffcern.errors import DiffcernError, UsageError
from diffcern.files import writing
from diffcern.methods import DiffusionClassifier
from diffcern.report import summarise
from diffcern.run.bench import Bench
from diffcern.run.evaluate import evaluate
from diffcern.run.executors import Processes
from diffcern.run.opening import Opening
from diffcern.run.spec import parse_spec
from diffcern.run.store import RunFolder
from diffcern.run.units import units
from run.conftest import Backwards

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def records(folder):
    """Every record file with its bytes."""
    return {path.name: path.read_bytes() for path in sorted((folder / "records").glob("*.parquet"))}


def rows_of(folder):
    return [row for file in sorted((folder / "records").glob("*.parquet")) for row in pq.read_table(file).to_pylist()]


def run(spec, folder, **options):
    return evaluate(spec, folder, device=CPU, **options)


@pytest.fixture
def whole(once, tmp_path):
    """An uninterrupted run, to do with as one likes."""
    return shutil.copytree(once, tmp_path / "whole")


def test_every_cell_has_every_image_once(spec, whole):
    rows = [row for name in records(whole) for row in pq.read_table(whole / "records" / name).to_pylist()]
    assert len(rows) == 4 * 2 * 45
    assert len({(r["entry"], r["shift"], r["id"]) for r in rows}) == len(rows)
    tta = [r for r in rows if r["entry"] == "diffusion-tta"]
    assert all(len(r["loss_trace"]) == 2 and r["nfe_backward"] == 8 for r in tta)


@pytest.mark.slow
def test_interrupted_anywhere_continues_to_identical_records(spec, whole, tmp_path):
    total = len(units(spec, 45))
    folder = tmp_path / "again"

    class Interrupt(Exception):
        pass

    for stop in range(0, total, 3):

        def progress(done, total, what, stop=stop):
            if done == stop:
                raise Interrupt

        with pytest.raises(Interrupt):
            run(spec, folder, progress=progress)
    run(spec, folder)
    assert records(folder) == records(whole)


@pytest.mark.slow
def test_killed_process_continues_to_identical_records(table, whole, tmp_path):
    """SIGKILL in the middle of real writing, at two moments; the leftovers of a torn write are ignored."""
    path = tmp_path / "spec.toml"
    path.write_text(tomli_w.dumps(table))
    folder = tmp_path / "killed"
    code = "import torch; torch.set_num_threads(1); from diffcern.cli import main; main()"
    command = [sys.executable, "-c", code, "bench", str(path), "--out", str(folder), "--device", "cpu"]
    for files in (2, 7):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 300
        while len(list(folder.glob("records/*.parquet"))) < files and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    kept = set(records(folder))
    assert 2 <= len(kept) < len(records(whole))
    (folder / "records" / ".torn.parquet.1.partial").write_bytes(b"PAR1")
    complete, _ = run(parse_spec(table), folder)
    assert complete
    assert records(folder) == records(whole)


@pytest.mark.slow
def test_four_shards_merge_into_the_same_run(spec, whole, tmp_path):
    folder = tmp_path / "sharded"
    finished = [run(spec, folder, shard=(i, 4))[0] for i in range(4)]
    assert finished == [False, False, False, True]
    assert records(folder) == records(whole)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 4])
def test_workers_make_the_same_run(spec, whole, tmp_path, monkeypatch, workers):
    """And no model is loaded beside them: the process that asks may have no accelerator, and no memory for a second."""

    def refuse(*arguments):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("diffcern.run.bench.load_models", refuse)
    seen = []
    complete, _ = run(
        spec,
        tmp_path / "two",
        executor=Processes(workers),
        progress=lambda done, total, what: seen.append((done, total)),
    )
    assert complete
    assert records(tmp_path / "two") == records(whole)
    means = [
        [{k: v for k, v in row.items() if "second" not in k} for row in summarise(f)] for f in (tmp_path / "two", whole)
    ]
    assert means[0] == means[1]
    total = len(units(spec, 45))
    assert seen == [(i, total) for i in range(total + 1)]


@pytest.mark.slow
def test_any_executor_makes_the_same_run(spec, whole, tmp_path):
    assert run(spec, tmp_path / "back", executor=Backwards())[0]
    assert records(tmp_path / "back") == records(whole)


@pytest.mark.slow
def test_batch_size_of_the_source_changes_no_prediction(spec, table, whole, tmp_path):
    table["entries"]["source"]["batch_size"] = 3
    other = parse_spec(table)
    run(other, tmp_path / "other")

    def rows(folder):
        tables = [pq.read_table(p) for p in sorted((folder / "records").glob("source--*.parquet"))]
        return {(r["shift"], r["id"]): r for t in tables for r in t.to_pylist()}

    a, b = rows(whole), rows(tmp_path / "other")
    for key, row in a.items():
        assert row["prediction"] == b[key]["prediction"]
        # matrix products of another batch size round differently
        assert row["probabilities"] == pytest.approx(b[key]["probabilities"], abs=1e-5)


@pytest.mark.slow
def test_images_in_memory_are_bounded_and_change_nothing(spec, whole, tmp_path, monkeypatch):
    from diffcern.run import bench as module

    size = 3 * 16 * 16 * 4
    monkeypatch.setattr(module, "KEPT_BYTES", 7 * size + 1)
    run(spec, tmp_path / "run")
    assert records(tmp_path / "run") == records(whole)
    bench = Bench(spec, CPU)
    made = [bench.image(position, "noise", 3) for position in range(20)]
    assert sum(image.nbytes for image in bench._images.values()) == 7 * size
    again = [bench.image(position, "noise", 3) for position in range(20)]
    assert [a is b for a, b in zip(made, again, strict=True)] == [True] * 7 + [False] * 13
    assert all(torch.equal(a, b) for a, b in zip(made, again, strict=True))
    assert not torch.equal(bench.image(0, "clean", 0), made[0])
    assert len(bench._images) == 1


def test_summary_counts_the_records(spec, whole):
    cells = {(c["entry"], c["shift"]): c for c in summarise(whole)}
    rows = [row for p in (whole / "records").glob("*.parquet") for row in pq.read_table(p).to_pylist()]
    for (entry, shift), cell in cells.items():
        chosen = [r for r in rows if r["entry"] == entry and r["shift"] == (shift if shift != "mean" else "noise")]
        accuracy = sum(r["prediction"] == r["target"] for r in chosen) / len(chosen)
        assert cell["value"] == pytest.approx(accuracy)
        assert cell["ci_low"] <= cell["value"] <= cell["ci_high"]
        assert cell["n"] == 45
        if entry == "diffusion-classifier":  # which races: at least its first look, at most all draws of all classes
            assert 30 <= cell["nfe_forward"] <= 60
        else:
            assert cell["nfe_forward"] == {"diffusion-tta": 8}.get(entry, 0)


def test_another_specification_is_refused(spec, table, whole):
    table["seed"] = 1
    with pytest.raises(DiffcernError, match=r"another specification \(seed was 0, is 1\)"):
        run(parse_spec(table), whole)


@pytest.mark.slow
def test_entries_in_another_order_are_another_specification(table, whole):
    table["entries"] = dict(reversed(table["entries"].items()))
    with pytest.raises(DiffcernError, match=r"another specification \(in another order\)"):
        run(parse_spec(table), whole)


def replaced(models, which, root):
    """The models with a copy of one of them in `root`, its weights 1 % larger than they were on the last call."""
    from safetensors.torch import load_file, save_file

    folder = root / which
    if not folder.exists():
        shutil.copytree(models[which], folder)
    (file,) = folder.rglob("*.safetensors")
    save_file(
        {name: value * 1.01 if value.is_floating_point() else value for name, value in load_file(file).items()}, file
    )
    return {**models, which: str(folder)}


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def small(table):
    """A specification of seconds."""
    table["data"]["count"] = 10
    table["shifts"] = {"names": ["clean"]}
    return table


@pytest.mark.parametrize("which", ["predictor", "prior"])
def test_replaced_weights_are_refused(small, models, tmp_path, which):
    small["models"] = replaced(models, which, tmp_path)
    out = tmp_path / "run"
    run(parse_spec(small), out, shard=(0, 2))
    before = contents(out)
    replaced(models, which, tmp_path)
    with pytest.raises(DiffcernError, match=f"other weights or settings of the {which}: give another --out"):
        run(parse_spec(small), out, shard=(1, 2))
    assert contents(out) == before


def test_other_images_of_the_same_name_are_refused(small, tmp_path):
    from PIL import Image

    (tmp_path / "images" / "0").mkdir(parents=True)
    for name in "ab":
        Image.new("RGB", (16, 16)).save(tmp_path / "images" / "0" / f"{name}.png")
    small["data"] = {"dataset": f"imagefolder:{tmp_path / 'images'}"}
    run(parse_spec(small), tmp_path / "run")
    os.utime(tmp_path / "images" / "0" / "a.png", (1, 1))  # the same image
    run(parse_spec(small), tmp_path / "run")
    first = (tmp_path / "images" / "0" / "b.png").read_bytes()
    Image.new("RGB", (16, 16), "red").save(tmp_path / "images" / "0" / "b.png")
    for _ in range(2):
        with pytest.raises(DiffcernError, match=r"other images of the same names came to .*\(0/b\.png\): give"):
            run(parse_spec(small), tmp_path / "run")
    (tmp_path / "images" / "0" / "b.png").write_bytes(first)
    run(parse_spec(small), tmp_path / "run")
    (tmp_path / "images" / "0" / "b.png").rename(tmp_path / "images" / "0" / "c.png")
    with pytest.raises(DiffcernError, match="with other images: give"):
        run(parse_spec(small), tmp_path / "run")


def test_images_are_read_for_their_digests_as_they_are_answered(small, tmp_path):
    """Not all of them before the first answer; one that is replaced on the way is seen, and its unit is not written."""
    from PIL import Image

    (tmp_path / "images" / "0").mkdir(parents=True)
    for number in range(45):
        Image.new("RGB", (16, 16)).save(tmp_path / "images" / "0" / f"{number:02d}.png")
    small["data"] = {"dataset": f"imagefolder:{tmp_path / 'images'}"}
    small["entries"] = {name: {"method": "source"} for name in ("first", "second")}
    spec, out, kept, replaced = parse_spec(small), tmp_path / "run", list[int](), ""

    def progress(done, total, what):
        nonlocal replaced
        file = out / ".images.digests.jsonl"
        kept.append(len(file.read_text().splitlines()) if file.is_file() else 0)
        if done == 3:
            replaced = rows_of(out)[0]["id"]
            Image.new("RGB", (16, 16), "red").save(tmp_path / "images" / replaced)

    with pytest.raises(DiffcernError, match="other images of the same names came"):
        evaluate(spec, out, device="cpu", progress=progress)
    assert kept == [0, 20, 40, 45]
    assert not any(row["entry"] == "second" and row["id"] == replaced for row in rows_of(out))


def test_changed_defaults_are_refused_unless_given(small, tmp_path, monkeypatch):
    run(parse_spec(small), tmp_path / "run")
    monkeypatch.setitem(DiffusionClassifier.__init__.__kwdefaults__, "draws", 7)  # given: 4
    run(parse_spec(small), tmp_path / "run")
    monkeypatch.setitem(DiffusionClassifier.__init__.__kwdefaults__, "norm", "l1")
    with pytest.raises(DiffcernError, match="other defaults of the methods' options"):
        run(parse_spec(small), tmp_path / "run")


def test_records_without_a_fingerprint_are_refused(small, tmp_path):
    """As an older version left them, whose specification lacks newer settings too."""
    out = tmp_path / "run"
    run(parse_spec(small), out)
    (out / "fingerprint.json").unlink()
    (out / "spec.toml").write_text((out / "spec.toml").read_text().replace('dtype = "float32"\n', ""))
    with pytest.raises(DiffcernError, match="kept no fingerprints"):
        run(parse_spec(small), out)


def test_a_bench_in_bfloat16(small, tmp_path):
    small["entries"]["diffusion-tta"]["options"]["adapt_prior"] = False
    full = parse_spec(small)
    small["models"]["dtype"] = "bfloat16"
    half = parse_spec(small)
    run(half, tmp_path / "half")
    run(full, tmp_path / "full")
    one, other = (Bench(spec, CPU).fingerprint() for spec in (full, half))
    assert {part for part in one if one[part] != other[part]} == {"prior"}
    assert records(tmp_path / "half").keys() == records(tmp_path / "full").keys()
    with pytest.raises(DiffcernError, match="another specification"):
        run(full, tmp_path / "half")


def test_a_bench_needs_a_predictor(small):
    del small["models"]["predictor"]
    with pytest.raises(UsageError, match=r"predictor = \.\.\. to \[models\]"):
        Bench(parse_spec(small), CPU)


def test_an_unwritable_folder_is_refused(spec, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DiffcernError, match="cannot write into"):
        run(spec, tmp_path / "file" / "run")


def test_class_names_of_data_and_predictor_must_meet(table, tmp_path, models):
    from PIL import Image

    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(tmp_path / "images" / name / "x.png")
    table["data"] = {"dataset": f"imagefolder:{tmp_path / 'images'}"}
    with pytest.raises(DiffcernError, match=r"cat, dog.*0, 1, 2"):
        Bench(parse_spec(table), CPU)


def test_classes_that_the_data_call_otherwise(table, tmp_path):
    """Folders named by words, in alphabetical order, some classes only: the map names them, and the logits of the
    classes that the data lack are not looked at."""
    from diffcern.data import encode_png, load_dataset

    words, digits = ["zero", "one", "two", "three", "four"], load_dataset("embedded:digits/validation")
    for index, sample in enumerate(digits[i] for i in range(60)):
        if sample.target < 5:
            (tmp_path / "images" / words[sample.target]).mkdir(parents=True, exist_ok=True)
            (tmp_path / "images" / words[sample.target] / f"{index}.png").write_bytes(encode_png(sample.image))
    table["data"] = {"dataset": f"imagefolder:{tmp_path / 'images'}"}
    table["shifts"] = {"names": ["clean"]}
    with pytest.raises(DiffcernError, match="four, one, three, two, zero"):
        Bench(parse_spec(table), CPU)
    table["models"]["class_map"] = {word: str(k) for k, word in enumerate(words)}
    bench = Bench(parse_spec(table), CPU)
    names = bench.task.class_names
    assert names == ("4", "1", "3", "2", "0")
    done = [record for unit in units(bench.spec, len(bench.order)) for record in bench.run(unit).records]
    assert {record.entry for record in done} == set(table["entries"])
    for record in done:
        target = int(names[record.target])
        assert record.id.startswith(words[target])
        assert digits[int(record.id.split("/")[1].removesuffix(".png"))].target == target
        assert len(record.probabilities) == 5


def test_a_class_with_several_right_answers(table, monkeypatch):
    """Any of them counts as right (ObjectNet's chair is three of ImageNet's)."""
    from diffcern.data import load_dataset
    from diffcern.run import truths

    source = load_dataset("embedded:digits/validation")
    object.__setattr__(source, "accepts", tuple((f"n{k}", f"n{(k + 1) % 10}") for k in range(10)))
    monkeypatch.setattr(truths, "load_dataset", lambda *_, **__: source)
    monkeypatch.setattr(truths, "imagenet_labels", lambda: (tuple("0123456789"), tuple(f"n{k}" for k in range(10))))
    del table["entries"]["diffusion-classifier"], table["entries"]["diffusion-tta"], table["entries"]["tent"]
    bench = Bench(parse_spec(table), CPU)
    done = [record for unit in units(bench.spec, len(bench.order)) for record in bench.run(unit).records]
    for record in done:
        target = source.targets[source.ids.index(record.id)]
        right = record.prediction in (target, (target + 1) % 10)
        assert (record.prediction == record.target) == right
    assert any(record.prediction == record.target for record in done)


@pytest.mark.slow
def test_an_unfinished_run_is_summarised_as_such(spec, tmp_path):
    def interrupt(done, total, what):
        if done == 5:  # three units of source, one of tent, one of three of diffusion-tta
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(spec, tmp_path / "run", progress=interrupt)
    rows = summarise(tmp_path / "run")
    assert len(rows) == 4 * 3
    assert {row["planned"] for row in rows} == {45}
    assert [(row["entry"], row["shift"]) for row in rows if row["complete"]] == [("source", "clean"), ("tent", "clean")]
    assert [row["n"] for row in rows if row["shift"] == "clean"] == [45, 45, 20, 0]
    run(spec, tmp_path / "run")
    assert all(row["complete"] for row in summarise(tmp_path / "run"))


def test_an_interrupted_run_keeps_what_it_skipped(small, tmp_path):
    from PIL import Image

    (tmp_path / "images" / "0").mkdir(parents=True)
    Image.new("RGB", (16, 16)).save(tmp_path / "images" / "0" / "good.png")
    (tmp_path / "images" / "0" / "bad.png").write_bytes(b"")
    small["data"] = {"dataset": f"imagefolder:{tmp_path / 'images'}"}
    del small["entries"]["tent"]  # a batch of one image has no statistics

    def interrupt(done, total, what):
        if done == total - 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(parse_spec(small), tmp_path / "run", progress=interrupt)
    rows = [row for row in summarise(tmp_path / "run") if row["complete"]]
    assert len(rows) == len(small["entries"]) - 1
    assert all(row["skipped"] == {"0/bad.png": "the file is empty"} for row in rows)
    assert run(parse_spec(small), tmp_path / "run") == (True, {"0/bad.png": "the file is empty"})
    assert all(row["complete"] for row in summarise(tmp_path / "run"))


def test_unreadable_images_are_skipped_and_named(table, tmp_path):
    from PIL import Image

    for name in "01":
        (tmp_path / "images" / name).mkdir(parents=True)
        Image.new("RGB", (16, 16), (40, 90, 200)).save(tmp_path / "images" / name / "good.png")
    (tmp_path / "images" / "0" / "bad.png").write_bytes(b"no image")
    table["data"] = {"dataset": f"imagefolder:{tmp_path / 'images'}"}
    complete, skipped = run(parse_spec(table), tmp_path / "run")
    assert complete
    assert list(skipped) == ["0/bad.png"]
    cells = summarise(tmp_path / "run")
    assert {cell["n"] for cell in cells} == {2}
    assert all(cell["complete"] and list(cell["skipped"]) == ["0/bad.png"] for cell in cells)
    assert run(parse_spec(table), tmp_path / "run") == (True, skipped)  # a resumed run still says so
    assert run(parse_spec(table), tmp_path / "two", executor=Backwards()) == (True, skipped)


def test_a_tiny_image_is_skipped_where_it_cannot_be_shifted(table, tmp_path):
    from PIL import Image

    for name, side in (("0", 16), ("1", 1)):
        (tmp_path / "images" / name).mkdir(parents=True)
        Image.new("RGB", (side, side), (40, 90, 200)).save(tmp_path / "images" / name / "x.png")
    table["data"] = {"dataset": f"imagefolder:{tmp_path / 'images'}"}
    table["shifts"] = {"names": ["clean", "blur"], "severities": [3]}
    del table["entries"]["tent"]  # a batch of one image has no statistics
    _, skipped = run(parse_spec(table), tmp_path / "run")
    assert list(skipped) == ["1/x.png"]
    cells = [cell for cell in summarise(tmp_path / "run") if cell["severity"] is not None]
    assert {(cell["shift"], cell["n"], *cell["skipped"]) for cell in cells} == {("clean", 2), ("blur", 1, "1/x.png")}


def test_workers_may_open_a_run_folder_at_the_same_moment(spec, tmp_path):
    opening = Opening("classification", [], [], {"predictor": "x"}, {})
    with ThreadPoolExecutor(8) as pool:
        begun = list(pool.map(lambda _: RunFolder(tmp_path / "run").begin(spec, opening, 1), range(100)))
    assert len(begun) == 100
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names >= {"records", "skipped", "timings", "spec.toml", "plan.json"}
    assert not any("partial" in name for name in names)


def test_the_order_is_drawn_from_the_seed(spec, table):
    orders = [Bench(parse_spec({**table, "seed": seed}), CPU).order for seed in (0, 1)]
    assert Bench(spec, CPU).order == orders[0] != orders[1]
    assert all(sorted(order) == list(range(45)) != order for order in orders)


@pytest.mark.slow
def test_a_unit_counts_when_all_of_it_is_written(spec, tmp_path, monkeypatch):
    """Killed before its last file, whichever that is, a unit is done again: its timings and what it skipped are there
    whenever its records are."""
    from diffcern.run import store

    write = store.write_whole

    def until_records(path, content):
        if path.parent.name == "records":
            raise KeyboardInterrupt
        write(path, content)

    monkeypatch.setattr(store, "write_whole", until_records)
    with pytest.raises(KeyboardInterrupt):
        run(spec, tmp_path / "run")
    monkeypatch.undo()
    assert len(list((tmp_path / "run" / "timings").iterdir())) == 1
    assert not list((tmp_path / "run" / "records").iterdir())
    run(spec, tmp_path / "run")
    assert all(row["complete"] for row in summarise(tmp_path / "run"))


def test_a_second_command_into_one_folder_is_refused(spec, tmp_path):
    """Unless it does another shard; and once the first one has ended, whichever way, it goes on."""
    out = tmp_path / "out"
    with writing(out, "-0-1"):
        with pytest.raises(DiffcernError, match="another command is writing"):
            evaluate(spec, out, device=CPU)
        evaluate(spec, out, device=CPU, shard=(1, 50))
    evaluate(spec, out, device=CPU, shard=(0, 50))
    assert not list(out.glob(".lock*"))
