"""How entries meet the images: batches that come out even, and the field's protocols by name."""

import itertools
import json
import math

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from diffcern.data import encode_png, load_dataset
from diffcern.errors import UsageError
from diffcern.report import summarise
from diffcern.rng import generator
from diffcern.run.batch import ALONE, even_batches
from diffcern.run.bench import Bench
from diffcern.run.evaluate import evaluate
from diffcern.run.order import ClassOrder
from diffcern.run.protocols import PROTOCOLS, correlated, stream
from diffcern.run.spec import parse_spec
from diffcern.run.units import units
from run.conftest import Backwards

CPU = torch.device("cpu")
TARGETS = [k % 10 for k in range(200)]


def rows_of(folder):
    tables = [pq.read_table(path) for path in sorted((folder / "records").glob("*.parquet"))]
    rows = [row for table in tables for row in table.to_pylist()]
    return [{**row, "notes": json.loads(row["notes"])} for row in rows]


def class_folders(root):
    """A hundred digits, each in the folder of its class."""
    digits = load_dataset("embedded:digits")
    for k in range(100):
        folder = root / str(digits[k].target)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{k:03d}.png").write_bytes(encode_png(digits[k].image))


@pytest.mark.parametrize("size", [1, 2, 5, 32])
@pytest.mark.parametrize("count", [0, 1, 2, 4, 5, 6, 9, 10, 11, 33, 64, 65, 95])
def test_no_batch_is_much_smaller_than_asked_for(count, size):
    batches = list(even_batches(iter(range(count)), size))
    assert list(itertools.chain(*batches)) == list(range(count))
    assert all(len(batch) <= size for batch in batches)
    assert len(batches) == math.ceil(count / size)
    if count > size:
        assert min(map(len, batches)) >= size // 2
    assert [len(batch) for batch in batches[:-2]] == [size] * max(0, len(batches) - 2)


def test_a_left_over_image_does_not_answer_for_itself(cli, tmp_path):
    """The last of 33 digits went from 8 (0.9998) to 3 (0.13) in a batch of its own."""
    digits = load_dataset("embedded:digits")
    (tmp_path / "images").mkdir()
    for k in range(33):
        (tmp_path / "images" / f"{k:02d}.png").write_bytes(encode_png(digits[k].image))
    (tmp_path / "images" / "07.png").write_bytes(b"broken")  # is in nobody's batch
    out = tmp_path / "out.json"
    models = ["--predictor", "embedded:digits", "--method", "tent", "--batch-size", "31"]
    code, _, err = cli("adapt", tmp_path / "images", *models, "--online", "--out", out)
    assert code == 0, err
    rows = {row["id"]: row for row in json.loads(out.read_text())}
    good = [row for row in rows.values() if not row["error"]]
    assert [row["batch"] for row in good] == [16] * 32  # 31 and 1 without evening them out
    assert sum(row["after"] == row["before"] for row in good) >= 31
    assert rows["07.png"]["error"]


@pytest.mark.parametrize("protocol", ["episodic", "online"])
@pytest.mark.parametrize(("method", "options"), [("tent", {}), ("bn-adapt", {})])
def test_a_bench_spreads_what_is_left_over(table, tmp_path, protocol, method, options):
    """41 images at 20: the last was alone, as one behind a broken file was; what was done stands in the record."""
    entry = {"method": method, "protocol": protocol, "batch_size": 20, "options": options}
    table["data"]["count"], table["entries"] = 41, {"it": entry}
    evaluate(parse_spec(table), tmp_path / "run", device=CPU)
    rows = [row for row in rows_of(tmp_path / "run") if row["shift"] == "clean"]
    sizes = [row["notes"].get("batch", 20) for row in rows]
    assert len(sizes) == 41
    assert min(sizes) == 10
    assert sorted(sizes) == [10] * 10 + [11] * 11 + [20] * 20


def test_methods_that_read_no_batch_keep_their_units(table):
    table["entries"] = {"source": {"method": "source", "batch_size": 20}}
    assert [(unit.start, unit.stop) for unit in units(parse_spec(table), 41)][:3] == [(0, 20), (20, 40), (40, 41)]


def test_the_only_image_that_can_be_read_is_skipped_by_methods_that_need_more(table, tmp_path):
    (tmp_path / "images" / "0").mkdir(parents=True)
    Image.new("RGB", (16, 16)).save(tmp_path / "images" / "0" / "good.png")
    (tmp_path / "images" / "0" / "bad.png").write_bytes(b"")
    table["data"] = {"dataset": f"imagefolder:{tmp_path / 'images'}"}
    table["entries"] = {
        "tent": {"method": "tent", "batch_size": 10},
        "single": {"method": "tent", "batch_size": 1},  # asked for
        "mixed": {"method": "bn-adapt", "batch_size": 10, "options": {"source_count": 16.0}},
    }
    evaluate(parse_spec(table), tmp_path / "run", device=CPU)
    assert {row["entry"] for row in rows_of(tmp_path / "run")} == {"single", "mixed"}
    cell = next(row for row in summarise(tmp_path / "run") if row["entry"] == "tent")
    assert cell["skipped"]["0/good.png"] == ALONE
    assert cell["complete"]


def test_a_correlated_stream_is_a_permutation_with_runs():
    def runs(order):
        return sum(TARGETS[a] != TARGETS[b] for a, b in itertools.pairwise(order))

    orders = {c: correlated(TARGETS, 0, c) for c in (0.05, 0.1, 1.0, 1000.0)}
    for order in orders.values():
        assert sorted(order) == list(range(200))
    assert runs(orders[0.1]) < 40  # of 199; a shuffle has about 180
    assert runs(orders[0.05]) <= runs(orders[1.0])
    assert correlated(TARGETS, 0, 0.1) == orders[0.1] != correlated(TARGETS, 1, 0.1)
    with pytest.raises(UsageError, match="some have none"):
        correlated([0, -1], 0, 0.1)


def test_a_mixed_stream_shuffles_images_of_all_shifts():
    cells = [("clean", 0), ("noise", 3), ("blur", 3)]
    mixed = stream("mixed", cells, TARGETS, 0)
    continual = stream("continual", cells, TARGETS, 0)
    assert sorted(mixed) == sorted(continual)
    assert [place[1:] for place in continual] == [cell for cell in cells for _ in TARGETS]
    assert len({shift for _, shift, _ in mixed[:30]}) == 3


@pytest.mark.parametrize("protocol", PROTOCOLS[1:])
def test_every_record_says_where_in_the_stream_it_came(table, tmp_path, protocol):
    entry = {"method": "tent", "protocol": protocol, "batch_size": 15}
    table["entries"] = {"it": entry, "source": {"method": "source"}}
    spec = parse_spec(table)
    evaluate(spec, tmp_path / "run", device=CPU)
    rows = [row for row in rows_of(tmp_path / "run") if row["entry"] == "it"]
    assert len(rows) == 2 * 45
    assert len({(row["id"], row["shift"]) for row in rows}) == 90
    orders = [row["notes"]["order"] for row in rows]
    assert sorted(orders) == (list(range(90)) if protocol in ("continual", "mixed") else sorted([*range(45)] * 2))
    assert all(cell["n"] == 45 and cell["complete"] for cell in summarise(tmp_path / "run") if cell["shift"] != "mean")


def test_protocols_are_the_same_in_any_order_of_units(table, tmp_path):
    table["entries"] = {p: {"method": "tent", "protocol": p, "batch_size": 15} for p in PROTOCOLS}
    spec = parse_spec(table)
    evaluate(spec, tmp_path / "one", device=CPU)
    evaluate(spec, tmp_path / "two", device=CPU, executor=Backwards())
    files = sorted(path.name for path in (tmp_path / "one" / "records").iterdir())
    assert len(files) >= len(PROTOCOLS)
    for name in files:
        assert (tmp_path / "two" / "records" / name).read_bytes() == (tmp_path / "one" / "records" / name).read_bytes()


def test_state_is_carried_as_the_protocol_says(table):
    """What the second shift begins with: the given weights, or those that the first left behind."""

    def answers(protocol, first=True):
        table["shifts"] = {"names": ["clean", "noise"] if first else ["noise"], "severities": [3]}
        options = {"learning_rate": 0.05}
        table["entries"] = {"it": {"method": "tent", "protocol": protocol, "batch_size": 15, "options": options}}
        bench = Bench(parse_spec(table), CPU)
        records = [record for unit in units(bench.spec, 45) for record in bench.run(unit).records]
        return [record.probabilities for record in records if record.shift == "noise"]

    assert answers("reset-per-shift") == answers("reset-per-shift", first=False) == answers("online")
    assert answers("continual") != answers("continual", first=False) == answers("online")


def test_a_stream_in_class_order_is_noticed(cli, tmp_path):
    """TENT on class folders fell from 94.5 to 15 % without a word."""
    class_folders(tmp_path / "images")
    common = ["adapt", tmp_path / "images", "--predictor", "embedded:digits", "--method", "tent", "--online"]
    common += ["--batch-size", "10"]

    def kept(name):
        rows = json.loads((tmp_path / name).read_text())
        return sum(row["after"] == row["id"].partition("/")[0] for row in rows) / len(rows)

    code, _, err = cli(*common, "--out", tmp_path / "ordered.json")
    assert code == 0
    assert "class after class" in err
    assert "--shuffle" in err
    code, _, err = cli(*common, "--shuffle", "--out", tmp_path / "shuffled.json")
    assert code == 0
    assert "class after class" not in err
    assert kept("shuffled.json") > 0.9 > 0.6 > kept("ordered.json")
    code, _, err = cli(*common[:4], "--method", "source", "--shuffle", "--out", tmp_path / "x.json")
    assert code == 2
    assert "--shuffle" in err


def test_what_protocols_refuse(table):
    table["entries"] = {"it": {"method": "tent", "protocol": "continuous"}}
    with pytest.raises(UsageError, match="continual"):
        parse_spec(table)
    table["entries"] = {"it": {"method": "tent", "protocol": "correlated", "concentration": 0.0}}
    with pytest.raises(UsageError, match=r"concentration"):
        parse_spec(table)


@pytest.mark.parametrize("classes", [2, 3, 10, 100])
@pytest.mark.parametrize("each", [6, 10, 60])
@pytest.mark.parametrize("wrong", [0.0, 0.3])
def test_class_after_class_is_noticed_of_few_and_of_many(classes, each, wrong):
    if classes * each < 20:
        return
    rng = torch.Generator().manual_seed(classes * each)
    truth = torch.arange(classes).repeat_interleave(each)
    guesses = torch.randint(classes, truth.shape, generator=rng)
    answers = torch.where(torch.rand(truth.shape, generator=rng) < wrong, guesses, truth)

    def noticed(stream):
        watch = ClassOrder()
        return any(watch.add([answer]) or watch.ordered for answer in stream)

    assert not noticed(answers[torch.randperm(len(answers), generator=rng)].tolist())
    if len(answers) >= 60 or not wrong:
        assert noticed(answers.tolist())


def test_batches_in_class_order_are_noticed_and_shuffled(cli, tmp_path):
    """BN-adapt on class folders: statistics of one class are not those of a batch."""
    class_folders(tmp_path / "images")
    given = ["adapt", tmp_path / "images", "--predictor", "embedded:digits", "--method", "bn-adapt", "--batch-size", 10]
    code, _, err = cli(*given, "--out", tmp_path / "order.json")
    assert code == 0
    assert "class after class" in err
    code, _, err = cli(*given, "--shuffle", "--out", tmp_path / "shuffled.json")
    assert code == 0
    assert "class after class" not in err
    right = {}
    for name in ("order", "shuffled"):
        rows = json.loads((tmp_path / f"{name}.json").read_text())
        right[name] = sum(row["after"] == row["id"].split("/")[0] for row in rows)
    assert right["order"] < 50 < 85 < right["shuffled"]


def test_a_stream_is_of_the_bench_order_but_where_it_is_drawn():
    """Positions as they are for the protocols that only carry a state; "mixed" by (seed, "mixed")."""
    cells = [("noise", 3), ("blur", 2)]
    plain = [(position, shift, severity) for shift, severity in cells for position in range(200)]
    for protocol in ("episodic", "online", "reset-per-shift", "continual"):
        assert stream(protocol, cells, TARGETS, 3) == plain
    order = torch.randperm(400, generator=generator(3, "mixed")).tolist()
    assert stream("mixed", cells, TARGETS, 3) == [plain[k] for k in order]
    dealt = correlated(TARGETS, 3, 0.1)
    assert stream("correlated", cells[:1], TARGETS, 3) == [(position, "noise", 3) for position in dealt]
    assert stream("correlated", cells[:1], TARGETS, 3, 5.0) != stream("correlated", cells[:1], TARGETS, 3)


@pytest.mark.parametrize("concentration", [0.1, 2.0])
def test_images_of_a_class_are_dealt_out_by_shares_of_a_dirichlet(concentration):
    """Class by class, in its images' order, over as many slots as classes; numpy's generator keyed by the seed."""
    targets, shares = [2, 0, 2, 5, 0, 2, 5, 5, 2], []
    numbers = np.random.default_rng(generator(4, "correlated").initial_seed())
    slots = [[], [], []]
    for own in (0, 2, 5):
        members = [k for k, target in enumerate(targets) if target == own]
        shares = numbers.dirichlet([concentration] * 3)
        first = 0
        for slot, share in enumerate(shares.cumsum()):
            last = len(members) if slot == 2 else round(share * len(members))
            slots[slot] += members[first:last]
            first = last
    assert correlated(targets, 4, concentration) == slots[0] + slots[1] + slots[2]


@pytest.mark.parametrize("concentration", [0.0, -1.0, float("nan")])
def test_a_concentration_is_above_zero(concentration):
    with pytest.raises(UsageError, match="above 0"):
        correlated([0, 1], 0, concentration)
