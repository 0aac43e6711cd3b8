"""Winoground's scores from a table of errors, and the command that makes such tables."""

import json
from contextlib import contextmanager

import pyarrow.parquet as pq
import pytest
import torch
from caption_checkpoints import CAPTIONS, caption_table, tiny

from diffcern import jobs
from diffcern.data import load_pairs
from diffcern.errors import UsageError
from diffcern.predictors import load_predictor
from diffcern.tasks.matching import matches
from diffcern.train.captions import load_captioned
from diffcern.train.clip import ClipRecipe, train_clip
from diffcern.train.recipes import Regime

SIZES = {"width": 16, "depth": 1, "heads": 2, "patch": 4, "text_width": 16, "text_depth": 1, "text_heads": 2}


def test_the_published_definitions():
    """Both images must find their caption, both captions their image; the correction takes away an easy image."""
    right = torch.tensor([[0.1, 0.2], [0.4, 0.3]])
    assert matches(right, torch.zeros(2)) == dict.fromkeys(matches(right, torch.zeros(2)), False) | {
        "text": True,
        "image": False,  # image 0 is easier under both captions
        "group": False,
        "image_corrected": False,
        "group_corrected": False,
    }
    corrected = matches(right, torch.tensor([0.15, 0.35]))
    assert corrected["image_corrected"]
    assert corrected["group_corrected"]
    assert not corrected["image"]
    assert matches(right) == {"text": True, "image": False, "group": False}


def test_ties_are_wrong_and_further_captions_only_distract():
    assert not matches(torch.tensor([[0.1, 0.1], [0.2, 0.1]]), torch.zeros(2))["text"]
    distracted = torch.tensor([[0.3, 0.4, 0.2]])
    assert not matches(distracted, torch.zeros(1))["text"]
    assert matches(distracted, torch.zeros(1))["image"]


@pytest.fixture
def run(cli):
    return lambda *arguments: cli("match", *arguments, "--device", "cpu")


@pytest.fixture
def pairs(tmp_path):
    """Two examples, of two images and of one with a false caption."""
    colours, captions = [(230, 20, 20), (20, 20, 230), (20, 230, 20)], [*CAPTIONS, "a green field"]
    groups = {"group": ["two", "two", None], "negatives": [None, None, ["a red field"]], "id": ["0", "1", "one"]}
    return caption_table(tmp_path / "pairs.parquet", colours, captions, **groups)


@pytest.fixture
def clip(pairs, tmp_path):
    """Hardly trained: which answers are right does not matter here."""
    recipe, schedule = ClipRecipe(image_size=8, projection=8, **SIZES), Regime(16, 16, 1e-3)
    folder = tmp_path / "clip"
    train_clip(load_captioned(str(pairs)), recipe, schedule, folder, device=torch.device("cpu"))
    return folder


def rows_and_scores(out, path):
    printed = json.loads(out)
    assert [row["id"] for row in printed["rows"]] == ["two", "one"]
    assert sorted(row["id"] for row in pq.read_table(path).to_pylist()) == ["one", "two"]
    scores = {row["score"]: (row["value"], row["n"]) for row in printed["scores"] if row["group"] == "all"}
    return {row["id"]: row for row in printed["rows"]}, scores


def test_clip_matches_by_its_logits(run, pairs, clip, tmp_path):
    code, out, _ = run(pairs, "--predictor", clip, "--out", tmp_path / "rows.parquet", "--json")
    assert code == 0
    rows, scores = rows_and_scores(out, tmp_path / "rows.parquet")
    assert list(scores) == ["text", "image", "group"]
    for name, (value, count) in scores.items():
        assert (value, count) == (sum(row[name] for row in rows.values()) / 2, 2)
    example = load_pairs(str(pairs))[0]
    predictor = load_predictor(str(clip), labels=list(example.captions), templates=["{}"])
    logits = predictor(torch.stack(example.images)).tolist()
    assert rows["two"]["similarities"] == [pytest.approx(row, abs=1e-4) for row in logits]
    assert rows["two"]["text"] == matches(-torch.tensor(logits))["text"]
    assert len(rows["one"]["similarities"][0]) == 2  # its own caption and the false one


def test_a_prior_that_reads_words_matches_by_its_errors(run, pairs, tmp_path):
    tiny([*CAPTIONS, "a green field"]).save_pretrained(tmp_path / "prior")
    options = ("--prior", tmp_path / "prior", "--draws", "2", "--out", tmp_path / "rows.parquet", "--json")
    code, out, _ = run(pairs, *options)
    assert code == 0
    rows, scores = rows_and_scores(out, tmp_path / "rows.parquet")
    assert list(scores) == ["text", "image", "group", "image_corrected", "group_corrected"]
    assert (len(rows["two"]["errors"]), len(rows["one"]["errors"][0])) == (2, 2)


def test_races_of_matches_do_not_depend_on_how_a_command_went(pairs, tmp_path):
    """Interrupted and gone on with, or the examples in another order: the same rows."""
    tiny([*CAPTIONS, "a green field"]).save_pretrained(tmp_path / "prior")
    how = {"prior": str(tmp_path / "prior"), "draws": 16, "strategy": "van-der-corput", "stop": "race", "z": 0.5}

    def rows(table, name, **events):
        made = jobs.make(jobs.Match, {"pairs": str(table), "device": "cpu", **how})
        found = made.carry_out(tmp_path / f"{name}.json", **events).rows
        return sorted(({**row, "seconds": 0} for row in found), key=lambda row: row["id"])

    whole = rows(pairs, "whole")
    assert any(row["stopped_after"] < 16 for row in whole)
    with pytest.raises(jobs.Interrupted):
        rows(pairs, "torn", events=Stopping())
    assert rows(pairs, "torn") == whole
    table = pq.read_table(pairs)
    pq.write_table(table.take(list(reversed(range(len(table))))), tmp_path / "turned.parquet")
    turned = rows(tmp_path / "turned.parquet", "turned")
    assert [row for row in turned if row["id"] == "one"] == [row for row in whole if row["id"] == "one"]
    how["start"] = 20
    with pytest.raises(UsageError, match="looks first after 20 draws, and there are 16"):
        rows(pairs, "refused")


class Stopping(jobs.Silent):
    """Interrupts after the first row."""

    @contextmanager
    def rows(self, what, total, done=0, evaluations=0):
        def heard(row):
            raise KeyboardInterrupt

        yield heard


def test_an_unknown_word_leaves_out_its_example(run, pairs, tmp_path):
    tiny(CAPTIONS).save_pretrained(tmp_path / "prior")  # knows "a", "green" and "field"
    captions, negatives = ["a green field", "a violet field"], [["a field"], ["a green field"]]
    other = caption_table(tmp_path / "other.parquet", [(0, 0, 0), (1, 1, 1)], captions, negatives=negatives)
    code, out, err = run(other, "--prior", tmp_path / "prior", "--draws", "2", "--json")
    assert code == 0
    assert "'violet' (nearest" in err
    assert [bool(row["error"]) for row in json.loads(out)["rows"]] == [False, True]


def test_one_image_with_one_caption_asks_nothing(run, clip, tmp_path):
    """It would count as right whatever a model says."""
    with pytest.raises(UsageError, match="nothing to tell apart"):
        matches(torch.ones(1, 1))
    tiny([*CAPTIONS, "a green field"]).save_pretrained(tmp_path / "prior")
    alone = {"negatives": [None, ["a red field"]], "id": ["alone", "asked"]}
    data = caption_table(tmp_path / "alone.parquet", [(230, 20, 20), (20, 20, 230)], CAPTIONS, **alone)
    for model in (("--prior", tmp_path / "prior", "--draws", "2"), ("--predictor", clip)):
        code, out, err = run(data, *model, "--json")
        printed = json.loads(out)
        assert code == 0
        assert {row["n"] for row in printed["scores"]} == {1}
        assert [row["id"] for row in printed["rows"] if row["error"]] == ["alone"]
        assert "skipped alone: one image and one caption leave nothing to tell apart" in err
    single = caption_table(tmp_path / "single.parquet", [(230, 20, 20)], CAPTIONS[:1])
    assert run(single, "--predictor", clip)[0] == 1


def test_exactly_one_model_is_named(run, pairs, clip):
    for models in ((), ("--prior", "somewhere", "--predictor", clip)):
        code, _, err = run(pairs, *models)
        assert code == 2
        assert "one of the two" in err


def test_other_predictors_do_not_read_captions(run, pairs):
    code, _, err = run(pairs, "--predictor", "embedded:digits")
    assert code == 2
    assert "captions are read by CLIP and SigLIP models" in err
