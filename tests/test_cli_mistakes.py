"""What a user does wrong, and names, widths and moments that are seldom tried."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from rich.console import Console
from rich.table import Table
from typer.testing import CliRunner

from diffcern import cli
from diffcern.assets import asset
from diffcern.cli import app
from diffcern.cli.listing import DATASETS
from diffcern.cli.shown import rows_table, scores_table
from diffcern.data import FORMS, encode_png
from diffcern.data.digits import digits
from diffcern.errors import DiffcernError, UsageError
from diffcern.given import parse_labels
from diffcern.train import loop

ROW = {"value": 0.5, "ci_low": 0.1, "ci_high": 0.9, "n": 2}
PREDICTOR, PRIOR = ("--predictor", "embedded:digits"), ("--prior", "embedded:digits")
TINY = ("embedded:digits/validation", "--image-size", 16, "--width", 4, "--images", 320, "--batch-size", 16)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """Where the commands run: two digits, a file and a folder in the way of results, files that are no models."""
    monkeypatch.chdir(tmp_path)
    data = digits("validation")
    for name in ("images/a.png", "images/x[/y].png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(encode_png(data[0].image))
    Path("broken").mkdir()
    Path("broken/c.png").write_text("no image")
    Path("file").write_text("")
    Path("folder.csv").mkdir()
    Path("typo.toml").write_text('name = "x"\n[data]\ndataset = "embedded:digits"\ncuont = 4\n')
    return tmp_path


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "80"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


ADAPT = ("adapt", "images", *PREDICTOR)
CLASSIFY = ("classify", "images", *PRIOR)
TRAIN = ("train", "predictor", *TINY)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ((*TRAIN, "--architecture", "timm:resnet5", "--out", "new"), UsageError, "'resnet51q'"),
        ((*TRAIN, "--out", "file/new"), DiffcernError, "file is a file"),
        ((*TRAIN, "--out", "images"), DiffcernError, r"images holds a\.png, .* no checkpoint\.pt"),
        (("train", "prior", *TINY[:3], "--out", "new", "--init", "nope"), UsageError, "there is no folder nope"),
        ((*ADAPT, "--out", "file/x.csv"), DiffcernError, "file is a file"),
        ((*ADAPT, "--out", "folder.csv"), DiffcernError, "is a folder"),
        (
            ("train", "answerer", "embedded:scenes/train", "--out", "new", "--vision", "x", "--patch", 4, "--width", 8),
            UsageError,
            "^--patch, --width: the CLIP's own with --vision",
        ),
        ((*ADAPT, "--out", "x.csv", "--method", "tent"), UsageError, "several images and --batch-size"),
        ((*ADAPT, "--out", "x.csv", "--class-map", "x.json"), UsageError, r"no file x\.json"),
        (("adapt", "nope", *PREDICTOR, "--out", "x.csv"), UsageError, r"^no such file or folder: nope; .*parquet:PATH"),
        ((*CLASSIFY, "--labels", "3"), UsageError, "two or more"),
        ((*CLASSIFY, "--labels", "3,8", "--prompt", "a {}"), UsageError, "--prompt is for models that read text"),
        ((*CLASSIFY, "--labels", "3,8,cat"), DiffcernError, r"^3 labels \(3, 8, cat\).*lacks cat"),
        (
            ("match", "embedded:scenes", "--predictor", "x", "--dtype", "bfloat16", "--draws", 100),
            UsageError,
            "^--draws, --dtype: only with --prior",
        ),
        (
            ("answer", "embedded:scenes", "--predictor", "x", "--method", "dda", "--preset", "paper"),
            UsageError,
            "^--method, --preset: only where the images are purified; give --prior too",
        ),
        (("answer", "embedded:scenes", "--predictor", "x", "--set", "steps=2"), UsageError, "^--set: only where"),
        ((*TRAIN, "--out", "new", "--learning-rate", "inf"), UsageError, "^--learning-rate is a finite number"),
        ((*TRAIN, "--out", "new", "--weight-decay", "inf"), UsageError, "^--weight-decay is a finite number, not inf"),
        (
            ("train", "prior", *TINY[:3], "--out", "new", "--rival-weight", "inf"),
            UsageError,
            "^--rival-weight is a finite",
        ),
        (
            ("train", "prior", *TINY[:3], "--out", "new", "--align-weight", "inf"),
            UsageError,
            "^--align-weight is a finite",
        ),
        ((*TRAIN, "--out", "new", "--seed", 2**70), UsageError, "a seed is within"),
        ((*TRAIN, "--out", "new", "--class-names", "cat,,dog"), UsageError, "different names, as cat,dog"),
        (
            (*CLASSIFY, "--set", "temperature=nan"),
            UsageError,
            "'temperature' of diffusion-classifier: numbers are finite",
        ),
        ((*CLASSIFY, "--set", "draws=1000000000000"), UsageError, "draws of .* numbers each need .* GB of memory"),
        (
            (*ADAPT, "--out", "x.csv", *PRIOR, "--set", "gate=inf"),
            UsageError,
            "'gate' of diffusion-tta: numbers are fin",
        ),
        ((*ADAPT, "--out", "x.csv", "--method", ":"), UsageError, "unknown method ':'"),
        ((*ADAPT, "--out", "x.csv", "--method", "math:pi"), UsageError, "math:pi"),
        (("bench", "nope.toml"), UsageError, r"^no such file: nope\.toml"),
        (("bench", "typo.toml"), UsageError, r"typo\.toml, \[data\]: unknown key 'cuont'.*'count'.*Known: class_names"),
    ],
)
def test_the_cause_is_named_and_nothing_is_left_behind(arguments, kind, message):
    with pytest.raises(kind, match=message):
        run(*arguments)
    assert not Path("new").exists()
    assert not list(Path().glob(".*partial*"))


@pytest.mark.parametrize("option", ["--learning-rate", "--weight-decay", "--ema-decay", "--label-smoothing"])
def test_rates_are_numbers(option, cli):
    code, _, err = cli(*TRAIN, "--out", "new", option, "nan")
    assert code == 2
    assert option in err
    assert not Path("new").exists()


@pytest.mark.parametrize("wrong", [("--shard", "5/4"), ("--device", "tpu"), ("--out", "file/run")])
def test_a_bench_is_checked_before_it_shows_progress(wrong, capfd):
    with pytest.raises(DiffcernError):
        app(["bench", "digits", *wrong], standalone_mode=False)
    assert "loading" not in "".join(capfd.readouterr())


def test_too_little_memory_says_what_needs_less(monkeypatch, capsys):
    def too_much():
        torch.empty(10**15)

    for failure in (too_much, lambda: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory. Tried ..."))):
        monkeypatch.setattr(cli, "app", failure)
        with pytest.raises(SystemExit) as exit:
            cli.main()
        assert exit.value.code == 1
        assert "Fewer network rows at a time need less (--set rows=N" in capsys.readouterr().err
    monkeypatch.setattr(cli, "app", lambda: torch.ones(2) @ torch.ones(3))  # a bug of ours is not hidden
    with pytest.raises(RuntimeError, match="size"):
        cli.main()


def test_brackets_in_names_are_no_markup():
    code, out = run(*CLASSIFY, "--out", "[bold]c.csv", "--set", "draws=2", "--set", "start=2")
    assert code == 0
    assert "x[/y].png" in out
    assert "c[/d] [bold]" in _printed(
        scores_table([{"group": "c[/d] [bold]", "score": "text", **ROW}], "score", "1 example")
    )


def test_a_table_fits_80_columns_and_is_left_out_when_empty():
    long = {"id": "a.png", "label": "Egyptian cat", "confidence": 0.99, "ranked": "x " * 99, "margin": 0.123456}
    costs = {"margin_standard_error": 0.123456, "nfe_forward": 123456, "seconds": 1.0, "error": None}
    text = _printed(rows_table([long | costs], 1))
    assert len(text.splitlines()) == 3
    assert "…" not in text
    assert run("classify", "broken", *PRIOR) == (1, "")


def _printed(table: Table) -> str:
    with (console := Console(width=80)).capture() as capture:
        console.print(table)
    return capture.get()


def test_tent_adapts_to_a_batch_and_mixed_statistics_to_one_image():
    assert run(*ADAPT, "--out", "a.csv", "--method", "tent", "--batch-size", 2)[0] == 0
    assert run(*ADAPT, "--out", "b.csv", "--method", "bn-adapt", "--set", "source_count=16")[0] == 0


@pytest.mark.parametrize("text", ["3", "one.txt", ",", "empty.txt"])
def test_one_label_is_nothing_to_tell_apart(text):
    Path("one.txt").write_text("cat\n")
    Path("empty.txt").write_text("\n")
    with pytest.raises(UsageError, match="two or more"):
        parse_labels(text)


def test_ctrl_c_in_training_is_130_and_the_time_limit_0(monkeypatch):
    clip = loop.nn.utils.clip_grad_norm_

    def press_ctrl_c(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        return clip(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop.nn.utils, "clip_grad_norm_", press_ctrl_c)
        code, out = run(*TRAIN, "--out", "new")
    assert code == 130
    assert "interrupted; run the same command to go on" in out
    assert "evaluate" not in out
    code, out = run(*TRAIN, "--out", "new", "--minutes", 0)
    assert code == 0
    assert "stopped; run the same command" in out
    code, out = run(*TRAIN, "--out", "new")
    assert code == 0
    assert "evaluate it" in out


def test_lists_say_what_a_preset_changes_and_what_data_are():
    assert DATASETS.keys() == FORMS.keys()
    methods = json.loads(run("list", "methods", "--json")[1])["methods"]
    assert "draws=250" in methods["diffusion-classifier"]
    assert methods["diffusion-classifier"].endswith(
        "of adapt and classify: draws=64, weighting=x0, strategy=van-der-corput, stop=race, first=[0.4, 1.0]"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "lacks denoiser/.*safetensors; denoiser/weights.bin is a pickle"),
        ("{}", r"cannot read .*clean_errors\.json.*101 percentiles"),
    ],
)
def test_what_is_wrong_with_a_folder_of_a_prior(content, message):
    shutil.copytree(asset("digits", "prior"), "prior")
    if content is None:
        next(Path("prior/denoiser").glob("*.safetensors")).rename("prior/denoiser/weights.bin")
    else:
        Path("prior/clean_errors.json").write_text(content)
    for options in ((), ("--allow-pickle",)):
        with pytest.raises(DiffcernError, match=message) as caught:
            run("classify", "images", "--prior", "prior", *options)
        assert "truncated" not in str(caught.value)


def test_a_full_disk_says_what_to_do(monkeypatch, capsys):
    def full():
        raise OSError(errno.ENOSPC, "No space left on device", "r")

    monkeypatch.setattr(
        cli, "app", lambda: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device", "r"))
    )
    with pytest.raises(SystemExit, match="1"):
        cli.main()
    assert "No space left on device: 'r'; what was finished is kept: make room" in capsys.readouterr().err
