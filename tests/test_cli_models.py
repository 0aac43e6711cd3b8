"""The commands on models in the exact hub format: as a user of published ones types them."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hub_checkpoints import dit, stable_diffusion
from typer.testing import CliRunner

import diffcern.data
from diffcern.cli import app
from diffcern.data import Pairs, encode_png
from diffcern.errors import DiffcernError, UsageError
from diffcern.given import parse_labels
from diffcern.tasks.matching import SCORES

FAST = ["--set", "draws=4", "--json"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("models")
    dit(root / "dit")
    stable_diffusion(root / "sd")
    (root / "images").mkdir()
    for name in "ab":
        (root / "images" / f"{name}.png").write_bytes(encode_png(torch.rand(3, 20, 30)))
    return root


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def test_classify_with_a_class_conditional_prior(folder):
    code, text = run("classify", folder / "images", "--prior", folder / "dit", *FAST)
    rows = json.loads(text)
    assert code == 0
    assert {row["label"] for row in rows} <= {"tench", "goldfish", "great white shark"}
    code, text = run("classify", folder / "images", "--prior", folder / "dit", "--labels", "goldfish,tench", *FAST)
    assert {row["label"] for row in json.loads(text)} <= {"tench", "goldfish"}
    assert json.loads(text)[0]["nfe_forward"] == 2 * 4


def test_classify_with_labels_and_prompts(folder, tmp_path):
    """Any words, from the command line or a file; another sentence is another answer."""
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    common = ["classify", folder / "images", "--prior", folder / "sd", *FAST]
    _, plain = run(*common, "--labels", tmp_path / "names.txt")
    _, pets = run(*common, "--labels", "cat,dog", "--prompt", "a photo of a {}, a type of pet.")
    assert [row["id"] for row in json.loads(plain)] == ["a.png", "b.png"]
    assert [row["margin"] for row in json.loads(plain)] != [row["margin"] for row in json.loads(pets)]


def test_staged_elimination_and_half_precision(folder):
    stages = ["--set", "stop=", "--set", "keep=[2,1]", "--set", "samples=[2,6]", "--dtype", "bfloat16", "--json"]
    _, text = run("classify", folder / "images", "--prior", folder / "sd", "--labels", "cat,dog,fox,owl", *stages)
    assert json.loads(text)[0]["nfe_forward"] == 4 * 2 + 2 * 4  # 2 of the second stage's 6 are done


@pytest.mark.slow
def test_a_race_of_matches_costs_less_and_says_so(monkeypatch, tmp_path):
    """At a z that nobody reaches, the scores and errors of every draw; at the usual one, fewer evaluations."""
    command = ["match", "embedded:scenes", "--prior", "embedded:scenes-text", "--draws", "8", "--json"]
    command += ["--strategy", "van-der-corput", "--device", "cpu"]
    whole = diffcern.data.load_pairs("embedded:scenes")
    monkeypatch.setattr(diffcern.data, "load_pairs", lambda *_, **__: Pairs(whole.name, whole.entries[:3]))
    tables = {}
    for name, stop in {"all": [], "never": ["--stop", "race", "--z", "1e6"], "race": ["--stop", "race"]}.items():
        tables[name] = json.loads(run(*command, *stop)[1])["rows"]
    for all_, never, race in zip(*tables.values(), strict=True):
        assert np.allclose(never["errors"], all_["errors"], rtol=1e-4)
        assert {k: never[k] for k in SCORES} == {k: all_[k] for k in SCORES}
        assert never["nfe_forward"] == all_["nfe_forward"] == 8 * 6
        assert race["nfe_forward"] <= 48
        assert never["stopped_after"] == 8 >= race["stopped_after"] >= 3
        assert never["standard_errors"] > 0 < race["standard_errors"]
        assert "stopped_after" not in all_
    assert sum(row["nfe_forward"] for row in tables["race"]) < 3 * 48
    rows = {"image": [encode_png(whole[0].images[0])], "caption": ["a red cone"], "negatives": [["a blue cone"]]}
    pq.write_table(pa.table(rows), tmp_path / "one.parquet")
    monkeypatch.undo()
    row = json.loads(run("match", tmp_path / "one.parquet", *command[2:], "--stop", "race")[1])["rows"][0]
    assert row["unconditional"] == [None]  # nothing is compared with it
    assert row["nfe_forward"] <= 2 * 8
    with pytest.raises(UsageError, match=r"--z: only in a race"):
        run(*command, "--z", "3")
    with pytest.raises(UsageError, match="strategy is one of van-der-corput"):
        run(*command, "--strategy", "stratified", "--stop", "race")


def test_match(folder, tmp_path):
    """Scores with intervals and by tag; the table of every error; run again, it refuses to overwrite."""
    images = [encode_png(torch.rand(3, 16, 16)) for _ in range(4)]
    rows = {
        "id": [1, 2],
        "image_0": images[:2],
        "image_1": images[2:],
        "caption_0": ["a cat on a mat", "old man, young dog"],
        "caption_1": ["a mat on a cat", "young man, old dog"],
        "tag": ["noun", "adjective"],
    }
    pq.write_table(pa.table(rows), tmp_path / "pairs.parquet")
    command = ["match", f"winoground:{tmp_path}/pairs.parquet", "--prior", folder / "sd", "--draws", 4]
    code, text = run(*command, "--out", tmp_path / "out.json", "--json")
    result = json.loads(text)
    assert code == 0
    groups = {(row["group"], row["score"]): row for row in result["scores"]}
    assert groups["all", "text"]["n"] == 2
    assert groups["tag: noun", "group"]["n"] == 1
    assert groups["all", "image_corrected"]["ci_low"] <= groups["all", "image_corrected"]["value"]
    row = json.loads((tmp_path / "out.json").read_text())[0]
    assert [len(row["errors"]), len(row["errors"][0]), len(row["unconditional"])] == [2, 2, 2]
    assert row["nfe_forward"] == 2 * 3 * 4
    assert row["text"] == (row["errors"][0][0] < row["errors"][0][1] and row["errors"][1][1] < row["errors"][1][0])
    with pytest.raises(DiffcernError, match="exists"):
        run(*command, "--out", tmp_path / "out.json")
    with pytest.raises(UsageError, match="lists"):
        run(*command, "--out", tmp_path / "out.csv")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--labels", "cat,cat"], "given twice: cat"),
        (["--labels", "cat,dog", "--prompt", "a photo"], "without it"),
        (["--labels", "cat," + "x" * 90], "longer than the 77 tokens"),
    ],
)
def test_bad_labels(folder, arguments, message):
    with pytest.raises(UsageError, match=message):
        run("classify", folder / "images", "--prior", folder / "sd", *arguments)


def test_matching_needs_a_prior_that_reads(folder, tmp_path):
    pair = {"image": [encode_png(torch.rand(3, 8, 8))], "caption": ["a"], "negatives": [["b"]]}
    pq.write_table(pa.table(pair), tmp_path / "p.parquet")
    with pytest.raises(UsageError, match="does not read captions"):
        run("match", tmp_path / "p.parquet", "--prior", folder / "dit")
    with pytest.raises(DiffcernError, match=r"cannot fetch 'nobody/nothing'.*not in the cache"):
        run("match", tmp_path / "p.parquet", "--prior", "hf:nobody/nothing")


def test_a_prior_that_reads_needs_labels(folder):
    with pytest.raises(UsageError, match="--labels cat,dog"):
        run("classify", folder / "images", "--prior", folder / "sd")


def test_several_prompts_for_a_label(folder, tmp_path):
    """As published: every prompt is a hypothesis, and a label is as good as its best one."""
    rows = ["prompt,classname,classidx", "a cat,cat,0", "a kitten,cat,0", "a dog,dog,1"]
    (tmp_path / "prompts.csv").write_text("\n".join(rows))
    common = ["classify", folder / "images", "--prior", folder / "sd", *FAST]
    _, text = run(*common, "--labels", tmp_path / "prompts.csv")
    grouped = json.loads(text)
    assert grouped[0]["nfe_forward"] == 3 * 4
    (tmp_path / "single.csv").write_text("\n".join(["prompt,label", "a cat,cat", "a kitten,kitten", "a dog,dog"]))
    _, text = run(*common, "--labels", tmp_path / "single.csv")
    for row, single in zip(grouped, json.loads(text), strict=True):
        assert row["label"] == {"kitten": "cat"}.get(single["label"], single["label"])
        if single["label"] != "dog" and not single["ranked"].split(", ")[1].startswith("dog"):
            assert row["margin"] >= single["margin"]  # the runner-up is of another class
    (tmp_path / "bad.csv").write_text("text,number\na,b\n")
    with pytest.raises(UsageError, match="has no column label or classname"):
        run(*common, "--labels", tmp_path / "bad.csv")


def test_labels_that_are_long_or_a_file_that_is_not_there(folder):
    names = [f"label {k}" for k in range(60)]  # longer than a file name may be
    assert parse_labels(",".join(names)) == names
    with pytest.raises(UsageError, match=r"no file missing\.txt"):
        run("classify", folder / "images", "--prior", folder / "sd", "--labels", "missing.txt")


@pytest.mark.parametrize("command", ["classify", "adapt", "match", "purify", "align"])
def test_compile_is_of_the_priors_blocks(command, folder, tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(type(self).__name__))
    pair = {"image": [encode_png(torch.rand(3, 8, 8))], "caption": ["a"], "negatives": [["b"]]}
    pq.write_table(pa.table(pair), tmp_path / "p.parquet")
    images, sd = folder / "images", folder / "sd"
    digits = ["--predictor", "embedded:digits", "--prior", "embedded:digits"]
    arguments = {
        "classify": [images, "--prior", sd, "--labels", "cat,dog", *FAST],
        "adapt": [images, *digits, "--out", tmp_path / "out.json", "--set", "steps=1", *FAST],
        "match": [tmp_path / "p.parquet", "--prior", sd, "--draws", 1],
        "purify": [images, "--prior", sd, "--set", "steps=2", "--out", tmp_path / "out"],
        "align": [*digits, "--generator", "embedded:digits", "--per-class", 1, "--out", tmp_path / "out"],
    }[command]
    if command == "align":
        arguments += ["--generator-steps", 2, "--set", "steps=2", "--epochs", 1]
    assert run(command, *arguments, "--device", "cpu", "--compile")[0] == 0
    assert set(compiled) == {"BasicTransformerBlock"}  # what repeats in either


def test_a_map_from_the_priors_names(folder, tmp_path):
    """Labels that the prior knows by other names; without the map they are unknown."""
    command = ["classify", folder / "images", "--prior", folder / "dit", "--labels", "shark,gold", *FAST]
    with pytest.raises(DiffcernError, match="the prior lacks shark, gold"):
        run(*command)
    (tmp_path / "map.json").write_text('{"goldfish": "gold", "great white shark": "shark"}')
    _, text = run(*command, "--class-map", tmp_path / "map.json")
    theirs = ["classify", folder / "images", "--prior", folder / "dit", "--labels", "great white shark,goldfish", *FAST]
    _, expected = run(*theirs)
    names = {"great white shark": "shark", "goldfish": "gold"}
    assert [row["label"] for row in json.loads(text)] == [names[row["label"]] for row in json.loads(expected)]
    assert [row["margin"] for row in json.loads(text)] == [row["margin"] for row in json.loads(expected)]


def test_a_compiled_network_stays_compiled_in_a_method():
    from diffcern.methods.base import frozen_view

    module = torch.nn.Sequential(torch.nn.Linear(2, 2))
    module[0].compile()
    assert frozen_view(module)[0]._compiled_call_impl is not None


@pytest.mark.slow
def test_a_shortlist_of_captions(monkeypatch, tmp_path):
    """Among twelve captions an image's own is compared with those that the gradient ranks first, and with no other."""
    whole = diffcern.data.load_pairs("embedded:scenes")
    captions = [whole[number].captions[0] for number in range(0, 24, 2)]
    rows = {
        "image": [encode_png(whole[2 * number].images[0]) for number in range(3)],
        "caption": captions[:3],
        "negatives": [[other for other in captions if other != captions[number]] for number in range(3)],
    }
    pq.write_table(pa.table(rows), tmp_path / "many.parquet")
    command = ["match", tmp_path / "many.parquet", "--prior", "embedded:scenes-text", "--draws", "8", "--json"]
    command += ["--strategy", "van-der-corput", "--device", "cpu", "--stop", "race", "--z", "1e6"]
    every = json.loads(run(*command)[1])["rows"]
    some = json.loads(run(*command, "--shortlist", "4", "--shortlist-draws", "2")[1])["rows"]
    few = json.loads(run(*command, "--shortlist", "12")[1])["rows"]
    for all_, listed, unlisted in zip(every, some, few, strict=True):
        asked = [k for k, error in enumerate(listed["errors"][0]) if error is not None]
        assert len(asked) == 4 if 0 in asked else not asked
        assert np.allclose([listed["errors"][0][k] for k in asked], [all_["errors"][0][k] for k in asked], rtol=1e-4)
        best = int(np.argmin(all_["errors"][0]))
        if best in asked:
            assert listed["text"] == all_["text"] == (best == 0)
        if not asked:
            assert not listed["text"]
        assert (listed["nfe_forward"], listed["nfe_backward"]) == (2 + 8 * len(asked), 2)
        assert "nfe_backward" not in all_
        assert (unlisted["errors"], unlisted["nfe_backward"]) == (all_["errors"], 0)
    assert any(row["nfe_forward"] == 2 + 32 for row in some)
    with pytest.raises(UsageError, match=r"--shortlist: only in a race"):
        run(*command[:-4], "--shortlist", "4")
    with pytest.raises(UsageError, match="are some of 8 draws, not 9"):
        run(*command, "--shortlist", "4", "--shortlist-draws", "9")
