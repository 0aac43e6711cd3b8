"""What a bench says of its entries and records, and what it refuses."""

import json
import pickle

import pyarrow.parquet as pq
import pytest
import torch

from diffcern import jobs
from diffcern.data.shifts import shift
from diffcern.errors import UsageError
from diffcern.methods import build_method
from diffcern.rng import generator
from diffcern.run import bench as module
from diffcern.run.bench import Bench, Runner, images_of
from diffcern.run.evaluate import evaluate
from diffcern.run.executors import InProcess
from diffcern.run.opening import PICTURES, Open
from diffcern.run.spec import parse_spec
from diffcern.run.truths import load_images
from diffcern.run.units import Unit, units
from diffcern.types import Inputs

CPU = torch.device("cpu")


@pytest.fixture
def few(table):
    """Ten images of one shift, and two entries of seconds."""
    table["data"]["count"] = 10
    table["shifts"] = {"names": ["noise"], "severities": [3]}
    table["entries"] = {
        "source": {"method": "source", "batch_size": 20, "description": "as it is"},
        "tent": {"method": "tent", "protocol": "online", "batch_size": 4},
    }
    return table


def test_a_record_says_what_the_method_answered(few):
    """By hand: the shifted images in the bench's order, in batches that come out even."""
    bench = Bench(parse_spec(few), CPU)
    assert bench.order == torch.randperm(10, generator=generator(0, "order")).tolist()
    (unit,) = [unit for unit in units(bench.spec, 10) if unit.entry == "tent"]
    done = bench.run(unit)
    method = build_method("tent", bench.predictor, None, bench.task, {})
    state, row = method.init(), 0
    for size in (4, 3, 3):
        ids = [bench.dataset.ids[bench.order[k]] for k in range(row, row + size)]
        images = torch.stack([bench.image(k, "noise", 3) for k in range(row, row + size)])
        answer, state = method.step(state, Inputs(images, ids), 0)
        for k in range(size):
            record, timing = done.records[row], done.timings[row]
            assert (record.entry, record.method, record.dataset) == ("tent", "tent", "embedded:digits/validation")
            assert (record.shift, record.severity, record.id) == ("noise", 3, ids[k])
            assert (timing.entry, timing.shift, timing.severity, timing.id) == ("tent", "noise", 3, ids[k])
            assert timing.seconds > 0
            assert record.index == bench.order[row]
            assert record.target == bench.dataset.targets[bench.order[row]]
            assert record.prediction == answer.output[k].argmax()
            assert record.probabilities == pytest.approx(answer.probabilities[k].tolist(), abs=1e-6)
            assert record.notes == {"order": row} | ({"batch": 3} if size == 3 else {})
            assert (record.nfe_forward, record.nfe_backward, record.loss_trace) == (0, 0, [])
            row += 1
    assert done.skipped == []
    assert done.pictures == []


def test_an_episode_begins_afresh_and_says_nothing_of_its_place(few):
    few["entries"] = {"tent": {"method": "tent", "batch_size": 5, "options": {"learning_rate": 0.1}}}
    bench = Bench(parse_spec(few), CPU)
    records = bench.run(Unit("tent", "noise", 3, 0, 10)).records
    method = build_method("tent", bench.predictor, None, bench.task, {"learning_rate": 0.1})
    for start in (0, 5):
        images = torch.stack([bench.image(k, "noise", 3) for k in range(start, start + 5)])
        expected = method.step(method.init(), Inputs(images, ["?"] * 5), 0)[0].probabilities
        found = [record.probabilities for record in records[start : start + 5]]
        assert torch.allclose(torch.tensor(found), expected, atol=1e-5)
    assert all(record.notes == {} for record in records)


def test_entries_are_told_to_the_report(few):
    rows = Bench(parse_spec(few), CPU).entry_rows()
    source = {"entry": "source", "method": "source", "protocol": "episodic", "batch_size": 20, "needs_batch": False}
    tent = {"entry": "tent", "method": "tent", "protocol": "online", "batch_size": 4, "needs_batch": True}
    assert rows == [{**source, "description": "as it is"}, {**tent, "description": ""}]


@pytest.mark.parametrize(
    ("entry", "needs"),
    [
        ({"method": "source", "protocol": "online", "batch_size": 1}, False),
        ({"method": "source", "protocol": "online", "batch_size": 2}, True),  # a state that batches share
        ({"method": "source", "batch_size": 2}, False),
        ({"method": "tent", "batch_size": 2}, True),
    ],
)
def test_whether_an_answer_depends_on_its_batch(few, entry, needs):
    few["entries"] = {"it": entry}
    assert [row["needs_batch"] for row in Bench(parse_spec(few), CPU).entry_rows()] == [needs]


def test_a_method_is_built_once(few):
    bench = Bench(parse_spec(few), CPU)
    assert bench.method("tent") is bench.method("tent")


def test_a_fingerprint_is_of_what_records_depend_on(few):
    """Images by their ids in order; options resolved over the constructors' defaults."""
    base = Bench(parse_spec(few), CPU).fingerprint()
    assert list(base) == ["predictor", "prior", "images", "options"]
    few["seed"] = 1
    assert {part for part, value in Bench(parse_spec(few), CPU).fingerprint().items() if value != base[part]} == {
        "images"
    }
    few["seed"] = 0
    few["entries"]["tent"]["options"] = {"learning_rate": 1e-3}  # the default, given
    assert Bench(parse_spec(few), CPU).fingerprint() == base
    few["entries"]["tent"]["options"] = {"learning_rate": 2e-3}
    changed = Bench(parse_spec(few), CPU).fingerprint()
    assert {part for part, value in changed.items() if value != base[part]} == {"options"}


def test_an_entry_that_needs_a_prior_says_so(few):
    del few["models"]["prior"]
    Bench(parse_spec(few), CPU)
    few["entries"]["dc"] = {"method": "diffusion-classifier"}
    with pytest.raises(UsageError, match=r"an entry needs a prior: add prior = \.\.\. to \[models\]"):
        Bench(parse_spec(few), CPU)


def test_renditions_are_of_scenes(few):
    few["shifts"] = {"names": ["clean", "sketch"], "severities": [3]}
    from diffcern.data.scenes import Scenes

    few["shifts"]["names"][1] = Scenes.renditions[0]
    with pytest.raises(UsageError, match="draws embedded:scenes otherwise, and cannot shift embedded:digits"):
        Bench(parse_spec(few), CPU)


def test_a_runner_travels_without_models_and_does_what_a_piece_says(few):
    spec = parse_spec(few)
    runner = pickle.loads(pickle.dumps(Runner(spec, CPU)))
    assert runner == Runner(spec, CPU)
    assert pickle.loads(pickle.dumps(Runner(spec, CPU, images_of(spec)))) == runner  # elsewhere they are read again
    unit = units(spec, 4)[0]
    work, bench = runner(), Bench(spec, CPU)
    assert work(unit).records == bench.run(unit).records
    assert work(Open(frozenset())).fingerprint == bench.fingerprint()


def test_images_are_read_once_in_one_process(few, tmp_path, monkeypatch):
    """They may be a stream over a network."""
    asked = []
    monkeypatch.setattr(module, "load_images", lambda *given: asked.append(given) or load_images(*given))
    evaluate(parse_spec(few), tmp_path, device=CPU)
    assert len(asked) == 1


def test_a_run_folder_says_what_is_planned(few, tmp_path):
    said = []
    assert evaluate(parse_spec(few), tmp_path, device=CPU, progress=lambda *given: said.append(given)) == (True, {})
    assert said == [(0, 2, "source on noise 3"), (1, 2, "tent on noise 3"), (2, 2, "done")]
    assert json.loads((tmp_path / "plan.json").read_text()) == {
        "task": "classification", "images": 10, "conditions": [["noise", 3]],
    }  # fmt: skip
    assert json.loads((tmp_path / "classes.json").read_text()) == list("0123456789")
    assert [row["entry"] for row in json.loads((tmp_path / "entries.json").read_text())] == ["source", "tent"]
    assert len(pq.read_table(tmp_path / "examples.parquet")) > 0
    assert not (tmp_path / "truths.parquet").exists()
    said.clear()
    evaluate(parse_spec(few), tmp_path, device=CPU, progress=lambda *given: said.append(given))
    assert said == [(2, 2, "done")]


def test_examples_are_made_once(few, tmp_path, monkeypatch):
    """They are of the images, which a run folder does not change."""
    evaluate(parse_spec(few), tmp_path, device=CPU)
    monkeypatch.setattr("diffcern.run.opening.PICTURES", {**PICTURES, "examples": None})  # must not be called again
    assert evaluate(parse_spec(few), tmp_path, device=CPU)[0]


def test_an_image_is_shifted_by_the_benchs_seed_and_its_own_id(few):
    few["seed"] = 4
    bench = Bench(parse_spec(few), CPU)
    sample = bench.dataset[bench.order[3]]
    assert torch.equal(bench.image(3, "noise", 3), shift(sample.image, "noise", 3, 4, sample.id))


def test_shards_take_turns_and_count_their_own_units(few, tmp_path):
    few["data"]["count"] = 45
    few["entries"] = {"source": {"method": "source"}}
    said = []
    options = {"device": CPU, "progress": lambda *given: said.append(given)}
    assert not evaluate(parse_spec(few), tmp_path, shard=(0, 2), **options)[0]
    assert sorted(path.stem for path in (tmp_path / "records").iterdir()) == [
        "source--noise-3--000000", "source--noise-3--000040",
    ]  # fmt: skip
    assert [given[:2] for given in said] == [(0, 2), (1, 2), (2, 2)]
    said.clear()
    assert evaluate(parse_spec(few), tmp_path, shard=(1, 2), **options)[0]
    assert [given[:2] for given in said] == [(0, 1), (1, 1)]


def test_an_executor_is_given_what_is_left(few, tmp_path):
    few["data"]["count"] = 45
    few["entries"] = {"source": {"method": "source"}}
    evaluate(parse_spec(few), tmp_path, device=CPU, shard=(0, 2))
    given = []

    class Watched(InProcess):
        def map(self, make, pieces, finished, lost=None):
            given.extend(pieces)
            super().map(make, pieces, finished)

    said = []
    evaluate(parse_spec(few), tmp_path, device=CPU, executor=Watched(), progress=lambda *g: said.append(g[:2]))
    assert [piece.start for piece in given[1:]] == [20]
    assert given[0] == Open(frozenset({"truths"}))  # pictures are there, and truths of classes are no pictures
    assert said == [(2, 3), (3, 3)]
    evaluate(parse_spec(few), tmp_path, device=CPU, executor=Watched())
    assert given[2:] == given[:1]  # nothing is left but to look whether the models are those


def test_workers_are_the_cpus(tmp_path, monkeypatch):
    monkeypatch.setattr("diffcern.devices.torch.cuda.is_available", lambda: True)
    with pytest.raises(UsageError, match="several workers share a CPU, not cuda: leave --workers at 1"):
        jobs.make(jobs.Bench, {"spec": "digits", "workers": 2}).carry_out(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_image_of_the_room_that_is_left_is_kept(few, monkeypatch):
    """Exactly as large as what is left of `KEPT_BYTES` fits; one byte less does not."""
    size = 3 * 16 * 16 * 4
    for room, kept in ((size, 1), (size - 1, 0), (2 * size - 1, 1)):
        monkeypatch.setattr(module, "KEPT_BYTES", room)
        bench = Bench(parse_spec(few), CPU)
        for position in range(3):
            bench.image(position, "noise", 3)
        assert len(bench._images) == kept
