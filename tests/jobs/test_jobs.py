"""Jobs as values: what they refuse, what a form is made of, and the commands and functions that are made of them."""

import inspect
import json
from dataclasses import fields

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

import diffcern
from diffcern.data import encode_png, load_dataset
from diffcern.errors import DiffcernError, UsageError
from diffcern.jobs import JOBS, Adapt, Classify, Interrupted, Match, TrainAnswerer, TrainPrior, make, schema
from diffcern.jobs.spread import piecewise


@pytest.fixture
def images(tmp_path):
    folder, digits = tmp_path / "images", load_dataset("embedded:digits")
    folder.mkdir()
    for k in range(4):
        (folder / f"{k}.png").write_bytes(encode_png(digits[k].image))
    return str(folder)


QUICK = {"prior": "embedded:digits", "options": {"draws": 2, "start": 2}, "device": "cpu"}


class Hearer:
    """Keeps what it hears; interrupts after some rows."""

    def __init__(self, stop=None):
        self.heard, self.stop = [], stop

    def __call__(self, row):
        self.heard.append(row["id"])
        if len(self.heard) == self.stop:
            raise KeyboardInterrupt

    def rows(self, what, total, done=0, evaluations=0):
        self.begun = (what, total, done, evaluations)
        return self

    def __enter__(self):
        return self

    def __exit__(self, *raised):
        return None

    def say(self, text):
        self.heard.append(text)


def test_an_interrupted_call_goes_on_and_ends_like_a_whole_one(images, tmp_path):
    whole = diffcern.classify(images, **QUICK)
    assert [row["id"] for row in whole.rows] == [f"{k}.png" for k in range(4)]
    out = tmp_path / "rows.json"
    with pytest.raises(Interrupted, match="3 rows are kept"):
        diffcern.classify(images, **QUICK, out=out, events=Hearer(stop=3))
    again = Hearer()
    table = diffcern.classify(images, **QUICK, out=out, events=again)
    assert again.begun == ("classifying", 4, 3, 20)  # 2 draws x 10 classes an image
    assert again.heard == ["3.png"]
    timeless = [[{**row, "seconds": 0} for row in rows] for rows in (whole.rows, table.rows)]
    assert timeless[0] == timeless[1]
    assert table.out == out
    assert [row["id"] for row in json.loads(out.read_text())] == [row["id"] for row in table.rows]
    with pytest.raises(DiffcernError, match="exists"):
        diffcern.classify(images, **QUICK, out=out)
    assert diffcern.classify(images, **QUICK, out=out, overwrite=True).good


def test_rows_of_a_stream_are_made_again_all_of_them(images, tmp_path):
    job = make(Adapt, {"images": images, "predictor": "embedded:digits", "method": "tent", "batch_size": 2})
    with pytest.raises(Interrupted):
        job.carry_out(tmp_path / "rows.csv", events=Hearer(stop=2))
    again = Hearer()
    assert len(job.carry_out(tmp_path / "rows.csv", events=again).rows) == 4
    assert again.begun[2] == 0


def test_what_a_job_refuses():
    with pytest.raises(UsageError, match=r"unknown field of match 'draw'\. Did you mean 'draws'"):
        make(Match, {"pairs": "embedded:scenes", "draw": 3})
    with pytest.raises(UsageError, match="match: draws should be greater than or equal to 1, not 0"):
        make(Match, {"pairs": "embedded:scenes", "draws": 0})
    with pytest.raises(UsageError, match=r"draws, norm: only with --prior"):
        make(Match, {"pairs": "embedded:scenes", "predictor": "embedded:scenes-clip", "draws": 3, "norm": "l1"})
    with pytest.raises(UsageError, match="the key 'prior' is missing"):
        make(Classify, {"images": "folder"})
    with pytest.raises(UsageError, match="whole"):
        make(Classify, {"images": "folder", "prior": "embedded:digits", "view": "half"})
    with pytest.raises(ValidationError):
        Match(pairs="embedded:scenes", draws=0)
    with pytest.raises(UsageError, match="width: the CLIP's own with --vision"):
        make(TrainAnswerer, {"dataset": "embedded:scenes/train", "recipe": {"vision": "a", "width": 96}})
    with pytest.raises(UsageError, match=r"the key 'recipe\.widht' is unknown"):
        make(TrainPrior, {"dataset": "embedded:digits/train", "recipe": {"widht": 8}})


def test_a_part_that_is_given_in_part_keeps_the_jobs_own_defaults():
    job = make(TrainPrior, {"dataset": "embedded:digits/train", "regime": {"batch_size": 8}, "class_names": "a, b"})
    assert (job.regime.images, job.regime.batch_size, job.regime.learning_rate) == (2_000_000, 8, 1e-3)
    assert job.class_names == ("a", "b")


def test_texts_become_values(tmp_path):
    (tmp_path / "map.json").write_text('{"tabby": "cat"}')
    given = {"labels": "cat, dog", "class_map": str(tmp_path / "map.json"), "options": ["draws=3", "norm=l1"]}
    job = make(Classify, {"images": "folder", "prior": "embedded:digits", **given})
    assert job.labels == ("cat", "dog")
    assert job.class_map == {"tabby": "cat"}
    assert job.options == {"draws": 3, "norm": "l1"}


@pytest.mark.parametrize("name", JOBS)
def test_every_field_says_what_it_is(name):
    """To a command, a form and a function alike."""
    described = json.loads(json.dumps(schema(JOBS[name])))
    properties = dict(described["properties"])
    for part in ("recipe", "regime"):
        if part in properties and "$ref" in json.dumps(properties[part]):
            properties |= described["$defs"][properties.pop(part)["$ref"].rpartition("/")[2]]["properties"]
    inner = ("warmup", "clip", "checkpoint_seconds")  # not for users
    assert all(value.get("description") for key, value in properties.items() if key not in inner)
    assert len({field.name for field in fields(JOBS[name])}) >= 5


@pytest.mark.parametrize("name", ["classify", "match", "answer", "purify", "align", "bench"])
def test_functions_show_their_arguments(name):
    function = getattr(diffcern, name)
    parameters = inspect.signature(function).parameters
    own = {"out", "events"} | ({"overwrite"} if name in ("classify", "match", "answer") else set())
    assert {field.name for field in fields(JOBS[name])} | own == parameters.keys()
    assert "Returns" in function.__doc__
    with pytest.raises(TypeError):
        function("one", "two")


@pytest.mark.parametrize("name", JOBS)
def test_a_schema_is_json(name):
    """Browsers read no infinity."""
    json.dumps(schema(JOBS[name]), allow_nan=False)


def test_options_are_no_fields():
    """Those of a method are not held against the fields that have no effect; that they have none is."""
    questions = {"questions": "embedded:scenes", "predictor": "embedded:scenes-answerer"}
    with pytest.raises(UsageError, match=r"^options: only where the images are purified"):
        make(JOBS["answer"], {**questions, "options": {"method": 1}})


def test_what_functions_refuse(images, tmp_path):
    with pytest.raises(TypeError, match="classify was given images twice"):
        diffcern.classify(images, images="others", prior="embedded:digits")
    with pytest.raises(UsageError, match="unknown field of bench 'overwrite'"):
        diffcern.bench("digits", out=tmp_path, overwrite=True)
    assert "overwrite" not in diffcern.purify.__doc__
    with pytest.raises(UsageError, match="shard"):
        diffcern.bench("digits", out=tmp_path, shard="²/2")


def test_matches_of_other_images_are_not_gone_on_with(tmp_path):
    """The journal holds rows about images that the table had then."""
    table, out, scenes = tmp_path / "pairs.parquet", tmp_path / "out.json", load_dataset("embedded:scenes")

    def write(first):
        images = [encode_png(scenes[k].image) for k in (first, 1, 2)]
        rows = {
            "image": images,
            "caption": ["a red cone"] * 3,
            "negatives": [["a blue cone"]] * 3,
            "id": ["0", "1", "2"],
        }
        pq.write_table(pa.table(rows), table)

    given = {"predictor": "embedded:scenes-clip", "out": out}
    write(0)
    with pytest.raises(Interrupted, match="1 rows are kept"):
        diffcern.match(f"pairs:{table}", events=Hearer(stop=1), **given)
    write(3)
    with pytest.raises(DiffcernError, match="or its image was"):
        diffcern.match(f"pairs:{table}", **given)
    write(0)
    assert len(diffcern.match(f"pairs:{table}", **given).rows) == 3


def test_adapt_is_unsure_below_a_confidence(tmp_path):
    """As `classify` is; a map has no one answer that could be left open."""
    for k in (0, 10):
        (tmp_path / f"{k}.png").write_bytes(encode_png(load_dataset("embedded:digits/validation")[k].image))
    asked = {"images": str(tmp_path), "predictor": "embedded:digits", "method": "source", "device": "cpu"}
    rows = Adapt(**asked, abstain_below=1.0).carry_out(None).rows
    assert {row["after"] for row in rows if row["after_confidence"] < 1} == {"unsure"}
    assert "unsure" not in {row["before"] for row in rows}
    dense = {**asked, "predictor": "embedded:scenes-segmentation", "task": "segmentation", "abstain_below": 0.5}
    with pytest.raises(UsageError, match="--abstain-below is of one answer for an image"):
        Adapt(**dense).carry_out(tmp_path / "maps.parquet")


def test_pieces_are_the_same_whatever_is_left_of_the_work():
    """And hold whole batches: questions were asked beside others by several workers than by one."""
    asked = []

    class Elsewhere:
        def map(self, make, pieces, finished, lost):
            asked.extend(tuple(piece) for piece in pieces)

    ids = [str(place) for place in range(100)]
    piecewise(Elsewhere(), None, [range(40, 100)], ids, lambda row: None)
    assert [piece[0] for piece in asked if piece] == [40, 64, 96]
    asked.clear()
    piecewise(Elsewhere(), None, [range(3, 60)], ids, lambda row: None, alone=False)
    assert [len(piece) for piece in asked if piece] == [57]
