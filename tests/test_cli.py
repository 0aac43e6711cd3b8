"""The commands as a stranger types them, wrong ones included."""

import json
import shutil

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from diffcern.assets import asset
from diffcern.data.digits import digits
from diffcern.data.images import encode_png


@pytest.fixture
def folder(tmp_path):
    """Digits as PNG in two levels, and images a camera or a colleague may bring."""
    root = tmp_path / "images"
    (root / "nested").mkdir(parents=True)
    data = digits("validation")
    for i in range(2):
        (root / f"digit{i}.png").write_bytes(encode_png(data[i].image))
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8))
    picture.save(root / "nested" / "photo.jpg")
    picture.convert("L").save(root / "nested" / "grey.webp")
    picture.convert("RGBA").save(root / "rgba.png")
    Image.new("RGB", (1, 1)).save(root / "dot.png")
    (root / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    (root / "notes.txt").write_text("not an image")
    return root


MODELS = ("--predictor", "embedded:digits", "--prior", "embedded:digits")
QUICK = ("--set", "steps=1", "--set", "draws=2", "--device", "cpu")


@pytest.mark.parametrize("suffix", ["parquet", "csv", "json"])
def test_adapt_writes_before_and_after(cli, folder, tmp_path, suffix):
    out = tmp_path / f"result.{suffix}"
    code, _, err = cli("adapt", folder, *MODELS, "--out", out, *QUICK)
    assert code == 0
    assert "broken.jpg" in err
    assert "1 skipped" in err
    if suffix == "parquet":
        rows = pq.read_table(out).to_pylist()
    elif suffix == "csv":
        rows = pyarrow.csv.read_csv(out).to_pylist()
    else:
        rows = json.loads(out.read_text())
    ids = [row["id"] for row in rows]
    assert ids == sorted(
        ["digit0.png", "digit1.png", "nested/photo.jpg", "nested/grey.webp", "rgba.png", "dot.png", "broken.jpg"]
    )
    good = [row for row in rows if not row["error"]]
    assert len(good) == 6
    assert all(row["nfe_forward"] == 2 and 0 < row["after_confidence"] <= 1 for row in good)
    assert not list(tmp_path.glob(".*partial*"))


def test_adapt_strict_and_existing_file(cli, folder, tmp_path):
    out = tmp_path / "r.csv"
    assert cli("adapt", folder, *MODELS, "--out", out, *QUICK, "--strict")[0] == 1
    assert out.exists()
    code, _, err = cli("adapt", folder, *MODELS, "--out", out, *QUICK)
    assert code == 1
    assert "--overwrite" in err
    assert cli("adapt", folder, *MODELS, "--out", out, *QUICK, "--overwrite", "--json")[0] == 0


@pytest.fixture
def interrupted(cli, monkeypatch):
    """Runs a command that is interrupted when it writes its third row."""
    from diffcern.run.journal import Journal

    add, calls = Journal.add, []

    def stop_at_third(self, row):
        calls.append(row["id"])
        if len(calls) == 3:
            raise KeyboardInterrupt
        add(self, row)

    def run(*arguments):
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "add", stop_at_third)
            code, _, err = cli(*arguments)
        assert code == 130
        assert "run the same command to continue" in err

    return run


def test_adapt_interrupted_continues(cli, interrupted, folder, tmp_path):
    out = tmp_path / "r.json"
    interrupted("adapt", folder, *MODELS, "--out", out, *QUICK)
    assert not out.exists()
    code, _, err = cli("adapt", folder, *MODELS, "--out", out, *QUICK)
    assert code == 0
    assert "continuing: 2 of 7" in err
    whole = tmp_path / "whole.json"
    cli("adapt", folder, *MODELS, "--out", whole, *QUICK)

    def rows(path):
        return [{k: v for k, v in row.items() if k != "seconds"} for row in json.loads(path.read_text())]

    assert rows(out) == rows(whole)


def test_replaced_weights_or_another_precision_do_not_continue(cli, interrupted, folder, tmp_path):
    prior = tmp_path / "prior"
    shutil.copytree(asset("digits", "prior"), prior)
    adapt = ("adapt", folder, "--predictor", "embedded:digits", "--prior", prior, "--out", tmp_path / "r.csv", *QUICK)
    interrupted(*adapt)
    code, _, err = cli(*adapt, "--dtype", "bfloat16")
    assert code == 1
    assert "begun with other settings" in err
    (weights,) = prior.rglob("*.safetensors")
    save_file({name: value * 1.01 for name, value in load_file(weights).items()}, weights)
    code, _, err = cli(*adapt)
    assert code == 1
    assert "begun with other settings" in err


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_answers_nearly_the_same(cli, folder, tmp_path, dtype):
    def rows(*arguments):
        code, out, _ = cli(*arguments, folder / "digit0.png", "--json", "--device", "cpu")
        assert code == 0
        return json.loads(out)

    classify, adapt = ("classify", "--prior", "embedded:digits"), ("adapt", *MODELS)
    (full,), (half,) = rows(*classify), rows(*classify, "--dtype", dtype)
    assert half["label"] == full["label"]
    assert half["margin"] != full["margin"]
    assert half["margin"] == pytest.approx(full["margin"], rel=0.05)
    (full,), (half,) = (
        rows(*adapt, "--out", tmp_path / "full.csv"),
        rows(*adapt, "--out", tmp_path / "half.csv", "--dtype", dtype),
    )
    assert half["before_confidence"] == full["before_confidence"]  # the predictor stays in float32
    assert half["loss_first"] == pytest.approx(full["loss_first"], rel=0.05)
    assert half["after_confidence"] == pytest.approx(full["after_confidence"], abs=0.05)


def test_classify_ranks_labels(cli, folder, tmp_path):
    code, out, _ = cli("classify", folder / "digit0.png", "--prior", "embedded:digits", "--json", "--device", "cpu")
    (row,) = json.loads(out)
    assert code == 0
    assert row["label"] == str(digits("validation")[0].target)
    assert row["margin"] > 0
    some = ("--labels", "3,8", "--device", "cpu")
    code, out, _ = cli("classify", folder, "--prior", "embedded:digits", "--json", *some)
    assert {row["label"] for row in json.loads(out) if not row["error"]} <= {"3", "8"}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ("adapt", "{}", "--predictor", "embedded:digts", "--prior", "embedded:digits", "--out", "r.csv"),
            2,
            "embedded:digits",
        ),
        (("adapt", "{}", *MODELS, "--out", "r.xlsx"), 2, ".parquet, .csv, .json"),
        (("adapt", "{}", *MODELS, "--out", "r.csv", "--method", "tnt"), 2, "'tent'"),
        (("adapt", "{}", *MODELS, "--out", "r.csv", "--set", "step=1"), 2, "'steps'"),
        (("adapt", "{}", *MODELS, "--out", "r.csv", "--batch-size", "4"), 2, "--online"),
        (("adapt", "{}/nowhere", *MODELS, "--out", "r.csv"), 1, "no such file"),
        (("adapt", "{}", *MODELS, "--out", "r.csv", "--dtype", "fp8"), 2, "unknown dtype 'fp8'. Known: auto, bfloat16"),
        (("classify", "{}", "--prior", "embedded:digits", "--dtype", "fp8"), 2, "unknown dtype 'fp8'. Known: auto,"),
        (("bench", "digits", "--set", "models.dtype=fp8"), 2, "'float32', 'bfloat16' or 'float16', not 'fp8'"),
        (("bench", "digits", "--set", "data.count=abc"), 2, "--set data.count=abc, at data.count: Input should be a"),
        (("bench", "digits", "--set", "data.cuont=3"), 2, "--set data.cuont=3, [data]: unknown key 'cuont'. Did you"),
        (("classify", "{}", "--prior", "embedded:digits", "--labels", "cat,dog"), 1, "cat, dog"),
        (("bench", "digts"), 2, "digits"),
        (("bench", "digits", "--shard", "5/4"), 2, "1 <= I <= N"),
        (("bench", "digits", "--device", "tpu"), 2, "cpu"),
        (("report", "{}"), 1, "diffcern bench"),
        (("list", "method"), 2, "methods"),
        (("train", "prior", "embedded:digits/train", "--out", "x", "--objective", "y"), 2, "eps, x0, v, flow"),
        (("frobnicate",), 2, "frobnicate"),
    ],
)
def test_mistakes_have_a_message_and_an_exit_code(cli, folder, tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    got, _, err = cli(*(a.replace("{}", str(folder)) for a in arguments))
    assert got == code
    assert message in " ".join(err.split())
    assert "Traceback" not in err


def test_an_empty_folder(cli, tmp_path):
    (tmp_path / "empty").mkdir()
    code, _, err = cli("adapt", tmp_path / "empty", *MODELS, "--out", tmp_path / "r.csv")
    assert code == 1
    assert ".jpg" in err


def test_list_names_everything(cli):
    code, out, _ = cli("list")  # brackets in the names are no markup
    assert code == 0
    assert "hf:OWNER/NAME[/CONFIG]:SPLIT" in out
    code, out, _ = cli("list", "--json")
    catalogue = json.loads(out)
    assert code == 0
    assert {"source", "tent", "diffusion-tta"} <= set(catalogue["methods"])
    assert "embedded:digits" in catalogue["priors"]
    assert len(catalogue["corruptions"]) >= 19


def test_report_of_an_unfinished_bench_says_so(cli, tmp_path):
    quick = ("--set", "data.count=4", "--set", 'shifts.names=["clean"]', "--device", "cpu", "--out", tmp_path / "run")
    assert cli("bench", "digits", *quick, "--shard", "1/2")[0] == 0
    code, out, _ = cli("report", tmp_path / "run")
    assert code == 0
    assert "incomplete: 4 of 7 cells; run the same command again to finish" in out
    assert "Incomplete: 4 of 7 cells" in (tmp_path / "run" / "report.html").read_text()
    code, out, _ = cli("bench", "digits", *quick)
    assert code == 0
    assert "incomplete" not in out


def test_an_online_stream_starts_again(cli, interrupted, folder, tmp_path):
    """Its answers depend on the images before them: an interrupted one ends as one that was not."""
    tent = ("adapt", folder, "--predictor", "embedded:digits", "--method", "tent", "--online", "--batch-size", 3)
    interrupted(*tent, "--out", tmp_path / "r.json", "--set", "learning_rate=0.05")
    code, _, err = cli(*tent, "--out", tmp_path / "r.json", "--set", "learning_rate=0.05")
    assert code == 0, err
    cli(*tent, "--out", tmp_path / "whole.json", "--set", "learning_rate=0.05")

    def rows(path):
        return [{k: v for k, v in row.items() if k != "seconds"} for row in json.loads(path.read_text())]

    assert rows(tmp_path / "r.json") == rows(tmp_path / "whole.json")


def test_an_image_that_was_replaced_is_answered_again(cli, interrupted, folder, tmp_path):
    """What was answered about another image is no answer, though the file has its name."""
    adapt = ("adapt", folder, *MODELS, "--out", tmp_path / "r.json", *QUICK)
    interrupted(*adapt)
    first, second, *_ = sorted(path for path in folder.iterdir() if path.suffix == ".png")
    first.write_bytes(second.read_bytes())
    code, _, err = cli(*adapt)
    assert code == 1
    assert "was changed since it was written (its checksum differs), or its image was: give --overwrite" in err
    code, _, err = cli(*adapt, "--overwrite")
    assert code == 0, err
    assert "continuing: 1 of 7" in err
    rows = {row["id"]: row for row in json.loads((tmp_path / "r.json").read_text())}
    assert rows[first.name]["before"] == rows[second.name]["before"]


@pytest.mark.parametrize(
    ("command", "where"), [(("doctor",), "diffcern.selftest.self_test"), (("view", "{}"), "diffcern.report.write_view")]
)
def test_ctrl_c_ends_any_command_with_a_sentence(cli, folder, monkeypatch, command, where):
    def pressed(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(where, pressed)
    code, out, err = cli(*(a.replace("{}", str(folder)) for a in command))
    assert (code, out) == (130, "")
    assert "interrupted; nothing more was done" in err


def test_presets_are_listed_for_every_task(cli):
    methods = json.loads(cli("list", "methods", "--json")[1])["methods"]
    assert "\n... for depth: optimizer=adam, learning_rate=0.0001, temperature=1.0" in methods["sda-tta"]
    assert "... for" not in methods["memo"]


def test_what_is_missing_is_not_shown_as_what_is_there(cli, tmp_path):
    (tmp_path / "x.toml").write_text('name = "x"\n[data]\ncount = 3\n[models]\n[entries.source]\nmethod = "source"\n')
    code, _, err = cli("bench", tmp_path / "x.toml")
    assert code == 2
    assert " ".join(err.split()).endswith("x.toml, at data.dataset: Field required")
    _, _, err = cli("bench", tmp_path / "x.toml", "--set", "data.dataset=embedded:digits", "--set", "data.cuont=3")
    assert "unknown key 'cuont'" in err
