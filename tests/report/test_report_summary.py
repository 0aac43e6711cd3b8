"""The numbers of a summary against ones computed another way."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from diffcern.report import summarise, write_summary
from diffcern.report.summary import wilson

from .conftest import ENTRIES, SHIFTS, Build, plan, read, skip, write

DIFFERENCE = ("difference_to_source", "difference_low", "difference_high")


def cell(rows: list[dict[str, Any]], entry: str, shift: str, severity: int | None) -> dict[str, Any]:
    (row,) = [r for r in rows if (r["entry"], r["shift"], r["severity"]) == (entry, shift, severity)]
    return row


def by_cell(run: Path) -> dict[tuple[str, str], dict[str, bool]]:
    """Right or wrong by id, by plain loops."""
    right: dict[tuple[str, str], dict[str, bool]] = defaultdict(dict)
    for row in read(run):
        right[row["entry"], row["shift"]][row["id"]] = row["prediction"] == row["target"]
    return right


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (10, 10), (7, 40), (812, 1000)])
def test_wilson_is_scipys(successes: int, n: int) -> None:
    expected = stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert wilson(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_cells_are_counted(build: Build) -> None:
    run = build()
    rows = summarise(run)
    assert len(rows) == len(ENTRIES) * (1 + len(SHIFTS) + 1)
    for (entry, shift), right in by_cell(run).items():
        row = cell(rows, entry, shift, 0 if shift == "clean" else 3)
        assert row["metric"] == "accuracy"
        assert row["n"] == 40
        assert row["value"] == pytest.approx(np.mean(list(right.values())))
        expected = stats.binomtest(sum(right.values()), 40).proportion_ci(0.95, method="wilson")
        assert (row["ci_low"], row["ci_high"]) == pytest.approx((expected.low, expected.high))
        assert row["complete"]


def test_mean_is_the_mean_of_the_shifts_without_clean(build: Build) -> None:
    rows = summarise(build())
    for entry in ENTRIES:
        name = entry["entry"]
        values = [cell(rows, name, shift, 3)["value"] for shift in SHIFTS]
        mean = cell(rows, name, "mean", None)
        assert mean["value"] == pytest.approx(np.mean(values))
        assert mean["ci_low"] < mean["value"] < mean["ci_high"]
        assert mean["n"] == 40


def test_mean_interval_keeps_an_images_shifts_together(build: Build) -> None:
    """Reference: half of the interval is 1.96 standard errors of the images' own means."""
    run = build(n=400)
    right = by_cell(run)
    ids = sorted(right["source", "clean"])
    means = np.array([np.mean([right["source", s][i] for s in SHIFTS]) for i in ids])
    row = cell(summarise(run), "source", "mean", None)
    half = (row["ci_high"] - row["ci_low"]) / 2
    # 2000 resamples place a 95 % bound to within about 5 % of its distance.
    assert half == pytest.approx(1.96 * means.std() / np.sqrt(len(ids)), rel=0.08)


def test_differences_are_paired(build: Build) -> None:
    run = build(n=400)
    rows, right = summarise(run), by_cell(run)
    ids = sorted(right["source", "clean"])
    change = np.array([float(right["diffusion-tta", "fog"][i]) - right["source", "fog"][i] for i in ids])
    row = cell(rows, "diffusion-tta", "fog", 3)
    assert row["difference_to_source"] == pytest.approx(change.mean())
    half = (row["difference_high"] - row["difference_low"]) / 2
    assert half == pytest.approx(1.96 * change.std() / np.sqrt(len(ids)), rel=0.08)
    mean = cell(rows, "diffusion-tta", "mean", None)
    per_shift = [cell(rows, "diffusion-tta", shift, 3)["difference_to_source"] for shift in SHIFTS]
    assert mean["difference_to_source"] == pytest.approx(np.mean(per_shift))
    assert all(cell(rows, "source", "fog", 3)[key] is None for key in DIFFERENCE)


def test_an_entry_equal_to_source_differs_by_exactly_nothing(build: Build) -> None:
    run = build(entries=ENTRIES[:1])
    write(run / "records" / "1.parquet", [row | {"entry": "twin"} for row in read(run)])
    rows = [row for row in summarise(run) if row["entry"] == "twin"]
    assert rows
    assert all(row[key] == 0 for row in rows for key in DIFFERENCE)


def test_paired_interval_covers_the_true_difference(tmp_path: Path) -> None:
    """40 runs with a true gain of 0.35 - 0.05; below 34 hits of a 95 % interval has probability 0.004."""
    rng = np.random.default_rng(1)
    answers = {"source": (1, 0, 1, 0), "better": (1, 1, 0, 0)}  # both right, gained, lost, both wrong
    base = {"method": "m", "dataset": "d", "shift": "fog", "severity": 1, "target": 1, "notes": "{}"}
    base |= {"probabilities": [0.5, 0.5], "nfe_forward": 0, "nfe_backward": 0, "loss_trace": [0.0]}
    covered, halves = 0, []
    for trial in range(40):
        kinds = rng.choice(4, 60, p=[0.35, 0.35, 0.05, 0.25])
        rows = [
            base | {"entry": entry, "id": f"{i:02d}", "index": i, "prediction": right[kind]}
            for entry, right in answers.items()
            for i, kind in enumerate(kinds)
        ]
        write(tmp_path / str(trial) / "records" / "0.parquet", rows)
        row = cell(summarise(tmp_path / str(trial)), "better", "mean", None)
        covered += row["difference_low"] <= 0.3 <= row["difference_high"]
        halves.append((row["difference_high"] - row["difference_low"]) / 2)
    assert covered >= 34
    # Nor is it needlessly wide: the variance of one image's difference is 0.4 - 0.3 ** 2.
    assert np.mean(halves) == pytest.approx(1.96 * np.sqrt((0.4 - 0.3**2) / 60), rel=0.05)


def test_cost_comes_from_timings_and_records(build: Build) -> None:
    run = build()
    row = cell(summarise(run), "diffusion-tta", "mean", None)
    assert row["seconds_per_image"] == pytest.approx(0.9)
    assert (row["nfe_forward"], row["nfe_backward"], row["peak_memory_mb"]) == (180, 180, 512)
    (run / "timings" / "0.parquet").unlink()
    row = cell(summarise(run), "diffusion-tta", "mean", None)
    assert row["seconds_per_image"] is None
    assert row["peak_memory_mb"] is None


def test_several_severities_have_a_mean_per_shift(build: Build) -> None:
    rows = summarise(build(severities=(1, 5)))
    per_severity = [cell(rows, "source", "fog", s)["value"] for s in (1, 5)]
    mean = cell(rows, "source", "fog", None)
    assert mean["value"] == pytest.approx(np.mean(per_severity))
    assert mean["ci_low"] <= mean["value"] <= mean["ci_high"]
    assert not [row for row in rows if row["shift"] == "clean" and row["severity"] is None]


def test_without_targets_there_is_no_accuracy(build: Build) -> None:
    rows = summarise(build(targets=False))
    assert rows
    assert all(row["n"] == 40 for row in rows)
    assert not any({"metric", "value", "ci_low", "ci_high"} & row.keys() for row in rows)


def test_unlabelled_samples_do_not_count(build: Build) -> None:
    run = build()
    records = read(run)
    for row in records:
        if row["index"] >= 30:
            row["target"] = -1
    write(run / "records" / "0.parquet", records)
    row = cell(summarise(run), "tent", "fog", 3)
    kept = [r for r in records if (r["entry"], r["shift"]) == ("tent", "fog") and r["index"] < 30]
    assert row["n"] == 30
    assert row["value"] == pytest.approx(np.mean([r["prediction"] == r["target"] for r in kept]))


def test_incomplete_entries_are_compared_on_shared_images(build: Build) -> None:
    run = build()
    records = [row for row in read(run) if (row["entry"], row["shift"]) != ("tent", "fog") or row["index"] < 10]
    write(run / "records" / "0.parquet", records)
    rows, right = summarise(run), by_cell(run)
    row = cell(rows, "tent", "fog", 3)
    shared = right["tent", "fog"]
    expected = np.mean([float(shared[i]) - right["source", "fog"][i] for i in shared])
    assert row["n"] == 10
    assert row["difference_to_source"] == pytest.approx(expected)
    assert not row["complete"]
    assert not cell(rows, "tent", "mean", None)["complete"]
    assert cell(rows, "tent", "contrast", 3)["complete"]
    assert cell(rows, "source", "fog", 3)["complete"]


def test_an_entry_that_lacks_a_shift_is_incomplete(build: Build) -> None:
    run = build()
    records = [row for row in read(run) if (row["entry"], row["shift"]) != ("tent", "fog")]
    write(run / "records" / "0.parquet", records)
    rows = summarise(run)
    mean = cell(rows, "tent", "mean", None)
    assert not mean["complete"]
    values = [cell(rows, "tent", shift, 3)["value"] for shift in SHIFTS if shift != "fog"]
    assert mean["value"] == pytest.approx(np.mean(values))


PLANNED = [("clean", 0), *((shift, 3) for shift in SHIFTS)]


def test_cells_that_were_not_reached_are_there_and_incomplete(build: Build) -> None:
    run = build()
    plan(run, 40, [*PLANNED, ("snow", 3)])
    records = [row for row in read(run) if (row["entry"], row["shift"]) != ("tent", "fog") and row["entry"] != "source"]
    write(run / "records" / "0.parquet", records)
    rows = summarise(run)
    short = {(row["entry"], row["shift"]) for row in rows if not row["complete"]}
    assert short >= {("source", shift) for shift in ("clean", *SHIFTS, "snow", "mean")}
    assert short >= {(e["entry"], shift) for e in ENTRIES for shift in ("snow", "mean")}
    assert ("tent", "fog") in short
    assert len(short) == 7 + 3 + 2
    row = cell(rows, "source", "snow", 3)
    assert (row["n"], row["planned"], row["nfe_forward"]) == (0, 40, None)
    assert "value" not in row


def test_a_cell_that_all_entries_left_short_is_incomplete(build: Build) -> None:
    run = build()
    plan(run, 50, PLANNED)
    assert not any(row["complete"] for row in summarise(run))


def test_skipped_images_leave_a_cell_complete(build: Build) -> None:
    run = build()
    plan(run, 40, PLANNED)
    skip(run, "fog", 3, 7)
    rows = summarise(run)
    assert all(row["complete"] for row in rows)
    for entry in ENTRIES:
        row = cell(rows, entry["entry"], "fog", 3)
        assert (row["n"], row["planned"], row["skipped"]) == (39, 40, {"img-0007": "the file is empty"})
        assert cell(rows, entry["entry"], "mean", None)["skipped"] == row["skipped"]
        assert cell(rows, entry["entry"], "clean", 0)["skipped"] == {}


def test_order_of_files_and_rows_does_not_matter(build: Build) -> None:
    run = build()
    before = summarise(run)
    records = read(run)
    (run / "records" / "0.parquet").unlink()
    write(run / "records" / "b.parquet", records[::-1][:100])
    write(run / "records" / "a.parquet", records[::-1][60:])  # 40 rows twice, as after a killed run
    assert summarise(run) == before


def test_summary_is_written_as_strict_json(build: Build) -> None:
    run = build()
    rows = write_summary(run)
    text = (run / "summary.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == rows
    assert [p.name for p in run.iterdir() if "tmp" in p.name] == []
    write_summary(run)
    assert (run / "summary.json").read_text() == text
