"""Folders and journals that an older version began are gone on with, and what they hold is kept as it is."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from diffcern.alignment import read_alignment

OLD = Path(__file__).parent / "old"
DIGITS = ("--predictor", "embedded:digits", "--prior", "embedded:digits")
SCENES = ("--prior", "embedded:scenes-text", "--generator", "embedded:scenes-text", "--count", 2)
MASKS = ("--predictor", "embedded:scenes-segmentation", "--prior", "embedded:scenes-segmentation")
TABLES = {
    # with the options of the preset "small" of then
    "adapted.csv": (
        *("adapt", "images", *DIGITS, "--preset", "paper", "--set", "steps=1", "--set", "draws=2"),
        *("--set", "strategy=stratified", "--set", "weighting=x0", "--set", "optimizer=sgd"),
        *("--set", "learning_rate=0.05", "--set", "temperature=2.0", "--set", "adapt_prior=false"),
    ),
    "classified.json": (
        *("classify", "images", "--prior", "embedded:digits", "--labels", "3,4,0,1"),
        *("--preset", "paper", "--set", "draws=2", "--set", "weighting=x0"),
    ),
    "matched.parquet": ("match", "embedded:scenes", "--prior", "embedded:scenes-text", "--draws", 1),
    "answered.json": (
        *("answer", "embedded:scenes", "--predictor", "embedded:scenes-answerer", "--prior", "embedded:scenes-text"),
        *("--set", "steps=1", "--batch-size", 1),
    ),
}
FOLDERS = {
    "bench": ("bench", "old.toml"),
    "purified": ("purify", "images", "--prior", "embedded:digits", "--set", "steps=1"),
    "aligned": (
        *("align", *DIGITS, "--generator", "embedded:digits", "--per-class", 1, "--generator-steps", 1),
        *("--set", "steps=1", "--epochs", 1),
    ),
    "aligned-maps": (
        *("align", *MASKS, "--generator", MASKS[1], "--task", "segmentation", "--maps", "embedded:scenes/validation"),
        *("--count", 2, "--set", "steps=1", "--generator-steps", 50),
    ),
    "aligned-answerer": ("align-answerer", "--predictor", "embedded:scenes-answerer", *SCENES, "--set", "steps=1"),
    "trained": ("train", "predictor", "embedded:digits/train", "--images", 512, "--width", 4, "--depth", 1),
    "trained-prior": (
        *("train", "prior", "embedded:digits/train", "--images", 512, "--width", 8, "--heads", 1, "--depth", 1),
        *("--image-size", 16),
    ),
}


@pytest.fixture
def old(tmp_path, monkeypatch):
    shutil.copytree(OLD, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    return tmp_path / "old"


@pytest.mark.parametrize("name", TABLES)
def test_a_journal_is_gone_on_with(old, cli, name, monkeypatch):
    """Its two rows are kept to the byte; where thousands are left, the next one is enough."""
    command, journal = TABLES[name], old / f".{name}.partial.jsonl"
    shutil.move(old / f"{name}.partial.jsonl", journal)
    rows = [json.loads(line) for line in journal.read_text().splitlines()[1:]]
    assert len(rows) == 2
    for maker in ("run.match.match_rows", "run.answer.answer_rows"):
        _shorten(monkeypatch, maker)
    code, out, err = cli(*command, "--out", name, "--device", "cpu", "--json")
    assert code == 0, err
    assert "continuing: 2 of " in err
    found = json.loads(out)
    table = {row["id"]: row for row in (found if isinstance(found, list) else found["rows"])}
    assert len(table) > 2
    for row in rows:
        row.pop("checksum")
        assert table[row["id"]] == row


def _shorten(monkeypatch, name):
    """Only the first row that is left."""
    module, function = name.rsplit(".", 1)
    original = getattr(__import__(f"diffcern.{module}", fromlist=[function]), function)
    monkeypatch.setattr(f"diffcern.{name}", lambda *args, **kwargs: iter([next(original(*args, **kwargs))]))


@pytest.mark.slow
@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_is_gone_on_with(old, cli, name):
    before = {path: path.read_bytes() for path in (old / name).rglob("*") if path.is_file()}
    code, _, err = cli(*FOLDERS[name], "--out", name, "--device", "cpu")
    assert code == 0, err
    changed = {str(path.relative_to(old / name)) for path, content in before.items() if path.read_bytes() != content}
    assert changed <= {"checkpoint.pt", "questions.parquet", "before-after.png"}


def test_class_names_are_the_same_however_they_were_spaced(old):
    """They were kept as they were typed."""
    file = old / "aligned-maps" / "align.json"
    before = json.loads(file.read_text())
    file.write_text(json.dumps({**before, "maps": {**before["maps"], "class_names": "sky, road"}}))
    now = read_alignment(old / "aligned-maps")
    assert now.maps["class_names"] == "sky,road"
    replace(now, maps={**now.maps, "class_names": "sky,road"}).begin(old / "aligned-maps")


def test_a_units_records_are_those_that_were_there(old, cli):
    code, _, err = cli("bench", "old.toml", "--out", "bench", "--device", "cpu")
    assert code == 0, err
    made = pq.read_table(old / "bench" / "records" / "tta--contrast-5--000000.parquet")
    other = pq.read_table(OLD / "bench" / "records" / "tta--clean-0--000000.parquet")
    assert made.schema == other.schema
    assert made["id"] == other["id"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (("--seed", 1), "seed was 0, is 1"),
        (("--set", "steps=2"), "options.steps was 1, is 2"),
        (("--online",), "online"),
    ],
)
def test_other_settings_are_named(old, cli, changes, named):
    shutil.move(old / "adapted.csv.partial.jsonl", old / ".adapted.csv.partial.jsonl")
    code, _, err = cli(*TABLES["adapted.csv"], *changes, "--out", "adapted.csv", "--device", "cpu")
    assert code == 1
    assert named in err
