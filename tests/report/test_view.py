"""The files of a view: what they say of every record, which pictures they have, and what is refused in one sentence."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

import diffcern.report.view
import diffcern.run.bench as bench
from diffcern.errors import DiffcernError
from diffcern.report import write_view
from diffcern.report.notes import sentences
from diffcern.report.records import load
from diffcern.report.view import FILES, MARK, PARTS
from diffcern.report.view_data import DRAWN

from .conftest import SHIFTS, Build, plan, read, skip, write
from .test_report_dense import Masks, depths

OLD = Path(__file__).parents[1] / "jobs" / "old" / "bench"


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """The report has tests of its own."""
    monkeypatch.setattr(diffcern.report.view, "report_page", lambda run, summary: f"report of {run.title}")


def data(out: Path, name: str):
    """What a script of a view hands to its page."""
    call = re.fullmatch(r'diffcernData\("([^"]+)",(.*)\);\n', (out / "data" / f"{name}.js").read_text("ascii"))
    assert call[1] == name
    return json.loads(call[2])


def image(out: Path, n: int):
    each = data(out, "run")["detailed"]
    return data(out, f"details-{n // each}")[n % each]


def test_every_record_is_there_with_its_outcome(build: Build, tmp_path):
    folder, out = build(n=20), tmp_path / "site"
    rows = read(folder)
    rows[-1] |= {"loss_trace": [float(i) for i in range(3 * DRAWN)], "notes": '{"margin": 0.5, "order": 2}'}
    write(folder / "records" / "0.parquet", rows)
    skip(folder, "fog", 3, 7)
    rows = read(folder)
    made = write_view(folder, out)
    run, index = data(out, "run"), data(out, "index-0")
    assert (made.images, made.records) == (20, len(rows))
    assert index["ids"] == [f"img-{i:04d}" for i in range(20)]
    right = {(row["entry"], row["shift"], row["id"]): row["prediction"] == row["target"] for row in rows}
    width = len(run["entries"]) * len(run["conditions"])
    for c, (shift, _) in enumerate(run["conditions"]):
        for e, entry in enumerate(run["entries"]):
            for n, id in enumerate(index["ids"]):
                said = run["outcomes"][index["outcomes"][n * width + c * len(run["entries"]) + e]]
                before, after = (right.get((name, shift, id)) for name in ("source", entry))
                changed = "repaired" if after else "spoilt"
                expected = changed if before != after else "right" if after else "wrong"
                assert said == ("skipped" if after is None else expected)
    assert image(out, 7)["skipped"] == [[run["conditions"].index(["fog", 3]), e, "the file is empty"] for e in range(3)]
    wanted = rows[-1]
    place = [run["conditions"].index([wanted["shift"], 3]), run["entries"].index(wanted["entry"])]
    found = next(row for row in image(out, 19)["records"] if row[:2] == place)
    assert found[2] == wanted["prediction"]
    assert found[3] == pytest.approx(max(wanted["probabilities"]), rel=1e-3)
    assert found[4:7] == [wanted["nfe_forward"], wanted["nfe_backward"], 0.9]
    assert (len(found[7]), found[7][0], found[7][-1]) == (DRAWN, 0, 3 * DRAWN - 1)
    assert found[8] == ["The closest other answer is behind by a margin of 0.5.", "Number 3 of the stream."]


def test_pictures_that_the_run_keeps_are_files_and_the_page_says_why_no_more(build: Build, tmp_path):
    folder, out = build(n=20), tmp_path / "site"
    made = write_view(folder, out)
    assert image(out, 3)["shown"] == {str(c): f"3-{c}.png" for c in range(len(SHIFTS) + 1)}
    assert "shown" not in image(out, 15)
    assert made.pictures == 12 * (len(SHIFTS) + 1) == len(list((out / "pictures").iterdir()))
    page = (out / "index.html").read_text()
    assert "pictures of the 12 images that the run folder keeps: the data set cannot be opened here" in page
    write_view(folder, out, images=0)
    assert not list((out / "pictures").iterdir())


def test_pictures_are_made_again_as_the_bench_made_them(tmp_path):
    folder, out = shutil.copytree(OLD, tmp_path / "run"), tmp_path / "site"
    rows = pq.read_table(folder / "examples.parquet").to_pylist()  # in the run's order
    kept = {(row["shift"], row["id"]): row["image"] for row in rows}
    (folder / "examples.parquet").unlink()
    made = write_view(folder, out, images=3)
    assert made.pictures == 6
    ids, conditions = data(out, "index-0")["ids"], data(out, "run")["conditions"]
    for n, id in enumerate(ids):
        for c, name in image(out, n).get("shown", {}).items():
            assert (out / "pictures" / name).read_bytes() == kept[conditions[int(c)][0], id]
    assert {ids[n] for n in range(4) if "shown" in image(out, n)} == {row["id"] for row in rows[:3]}
    assert "pictures of 3 images" in made.sentences[-1]
    (folder / "fingerprint.json").write_text('{"images": "0"}')
    assert "other images than this run met" in write_view(folder, out).sentences[-1]


def test_pictures_of_a_run_whose_methods_are_not_known_here(tmp_path):
    """As another version of diffcern wrote it: what its images were is known all the same."""
    folder = shutil.copytree(OLD, tmp_path / "run")
    (folder / "examples.parquet").unlink()
    spec = folder / "spec.toml"
    spec.write_text(spec.read_text() + '\n[entries.later]\nmethod = "of-another-version"\noptions = { unheard = 1 }\n')
    assert write_view(folder, tmp_path / "site", images=3).pictures == 6


def test_data_that_go_away_on_the_way_leave_what_is_drawn(tmp_path, monkeypatch):
    drawn = bench.shown_image

    def gone(spec, images, sample, index, shift, severity):
        if len(met.add(sample.id) or met) > 2:
            raise DiffcernError("the shard is no longer there")
        return drawn(spec, images, sample, index, shift, severity)

    met: set[str] = set()
    monkeypatch.setattr(bench, "shown_image", gone)
    folder = shutil.copytree(OLD, tmp_path / "run")
    made = write_view(folder, tmp_path / "site", images=3)
    assert "pictures of 2 images" in made.sentences[-1]
    met = {"others", "before"}
    assert "the shard is no longer there" in write_view(folder, tmp_path / "again", images=3).sentences[-1]


def test_a_run_of_an_older_version_that_still_goes_on_shows_what_is_there(cli, tmp_path):
    before = {file: file.read_bytes() for file in OLD.rglob("*") if file.is_file()}
    code, out, err = cli("view", OLD, "--out", tmp_path / "site", "--images", 0)
    assert code == 0
    assert "4 images, 20 records" in out
    assert "incomplete: 5 of 6 cells" in err
    assert "Incomplete: 5 of 6 cells" in (tmp_path / "site" / "index.html").read_text()
    assert before == {file: file.read_bytes() for file in OLD.rglob("*") if file.is_file()}


def test_a_cell_that_was_not_reached_and_an_unknown_truth(build: Build, tmp_path):
    folder, out = build(n=4, targets=False, examples=False), tmp_path / "site"
    plan(folder, 4, [("clean", 0), *((shift, 3) for shift in SHIFTS), ("snow", 3)])
    write_view(folder, out)
    assert set(data(out, "index-0")["outcomes"]) == {"u", "."}
    assert data(out, "run")["choices"] == {"truth unknown": "u"}


def test_maps_are_better_or_worse_than_those_of_source_and_shown_beside_the_truth(tmp_path):
    out = tmp_path / "site"
    write_view(depths(tmp_path / "run"), out)
    run, index = data(out, "run"), data(out, "index-0")
    assert (run["dense"], run["metric"]) == (True, "δ < 1.25, % ↑")
    letters = {name: index["outcomes"][e :: len(run["entries"])] for e, name in enumerate(run["entries"])}
    said = {name: {run["outcomes"][letter] for letter in own} for name, own in letters.items()}
    assert said == {"source": {"answered"}, "tent": {"as good as source"}, "diffusion-tta": {"better than source"}}
    shown = image(out, 2)
    assert (shown["truths"], shown["maps"]["1-2"], shown["scales"]) == ("2-truth.png", "2-1-2.png", "1.4 to 8.0 m")
    assert Image.open(out / "pictures" / "2-1-2.png").size == (6, 6)
    assert 0.8 <= shown["records"][-1][9] <= 0.82
    assert "maps" not in image(out, 8)
    write_view(Masks(tmp_path / "masks", n=7).path, out)
    assert [name for name, _ in data(out, "run")["colours"]] == ["sky", "road", "car", "tree"]


def test_the_view_of_a_run_may_lie_in_it_and_is_written_over(build: Build):
    folder = build(n=4)
    write_view(folder, folder / "view")
    (folder / "view" / "notes.txt").write_text("mine")
    (folder / "view" / "data" / "stale.js").write_text("")
    made = write_view(folder, folder / "view")
    assert not (folder / "view" / "data" / "stale.js").exists()
    assert (folder / "view" / "notes.txt").read_text() == "mine"
    assert "4 images" in made.page.read_text()
    assert len(load(folder).cells) == 15
    damage_notes(folder)
    with pytest.raises(DiffcernError, match="no named numbers"):
        write_view(folder, folder / "view")
    assert "4 images" in made.page.read_text()
    assert {path.name for path in (folder / "view").iterdir()} == {*PARTS, *FILES, MARK, "notes.txt"}


def damage(folder: Path) -> None:
    (folder / "records" / "0.parquet").write_bytes(b"PAR1")


def damage_notes(folder: Path) -> None:
    write(folder / "records" / "0.parquet", [row | {"notes": "[1]"} for row in read(folder)])


@pytest.mark.parametrize(
    ("change", "out", "reason"),
    [
        (shutil.rmtree, "site", "no run folder"),
        (lambda folder: shutil.rmtree(folder / "records"), "site", "no records in"),
        (
            lambda folder: [shutil.rmtree(folder / "records"), (folder / "demo.json").touch()],
            "site",
            r"demo that answers in tables \(examples\.parquet\), not of a bench",
        ),
        (damage, "site", "truncated or none of diffcern's"),
        (damage_notes, "site", "no named numbers"),
        (lambda folder: None, "run", "holds something else than a view"),
        (lambda folder: None, "run/spec.toml", "is a file"),
    ],
    ids=["no folder", "nothing yet", "tables of a demo", "damaged", "damaged notes", "something else", "a file"],
)
def test_what_cannot_be_is_said_in_one_sentence(build: Build, tmp_path, change, out, reason):
    folder = build(n=2)
    change(folder)
    with pytest.raises(DiffcernError, match=reason) as raised:
        write_view(folder, tmp_path / out)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "site" / "index.html").exists()


def test_notes_in_words():
    view = {
        "view_gain": 1.5,
        "view_offset": -0.25,
        "view_turn": 30,
        "view_nats": 14.02,
        "view_nats_standard_error": 1.0,
    }
    assert sentences(view) == ["Seen turned by 30°, light times 1.5, plus -0.25, which is likelier by 14.02 ± 1 nats."]
    assert sentences({**view, "view_gain": 1, "view_offset": 0, "view_turn": 0}) == ["Seen as it is."]
    assert sentences({**view, "view_turn": 0, "view_veil": 0.125})[0].startswith("Seen without a veil of 0.125, light")
    hidden = {**view, "view_hidden": 0.125, "view_hidden_nats": 52.04}
    assert sentences(hidden)[1:] == ["Of it 12.5 % are hidden, and painted, which is likelier by 52.04 nats."]
    assert sentences({**hidden, "view_ground": 0.25})[1].startswith("Of it 12.5 % are ground, darker than 0.25, which")
    race = {"margin": 0.0961, "margin_standard_error": 0.033, "stopped_after": 3.0, "rivals_left": 0.0}
    assert sentences(race) == [
        "The closest other answer is behind by a margin of 0.0961 ± 0.033 (standard error).",
        "The race ended after 3 draws: no rival was left.",
    ]
    assert sentences({"own_number": 2.5, "batch": 3}) == [
        "In a batch of 3, smaller than the others.",
        "own number: 2.5.",
    ]
