"""The tables of the terminal and of the docs."""

from __future__ import annotations

import io
import re
from typing import Any

from rich.console import Console

from diffcern.report import print_table, summarise
from diffcern.report.summary import wilson
from diffcern.report.tables import markdown_table

from .conftest import ENTRIES, SHIFTS, Build, plan, skip

HARMFUL = {
    "entry": "harmful",
    "method": "memo",
    "protocol": "episodic",
    "batch_size": 1,
    "needs_batch": False,
}
FIFTEEN = [f"corruption_{i:02d}" for i in range(15)]


def printed(summary: list[dict[str, Any]], width: int = 120) -> str:
    out = io.StringIO()
    print_table(summary, Console(file=out, width=width))
    return out.getvalue()


def test_entries_are_rows_where_they_fit(build: Build) -> None:
    lines = printed(summarise(build(shifts=("fog", "snow")))).splitlines()
    header = next(line for line in lines if "entry" in line)
    assert [header.index(name) for name in ("clean", "snow", "fog", "mean")] == sorted(
        header.index(name) for name in ("clean", "snow", "fog", "mean")
    )
    assert any("diffusion-tta" in line and "180" in line for line in lines)


def test_many_shifts_turn_the_table_and_stay_within_the_page(build: Build) -> None:
    text = printed(summarise(build(shifts=FIFTEEN)))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 120
    assert any("source" in line and "diffusion-tta" in line for line in lines)
    assert all(any(shift in line for line in lines) for shift in (*FIFTEEN, "clean", "mean"))
    assert "…" not in text


def test_dagger_has_its_footnote(build: Build) -> None:
    text = printed(summarise(build()))
    assert "tent†" in text
    assert "source†" not in text
    assert "† needs a batch" in text
    assert "†" not in printed(summarise(build(entries=ENTRIES[:1])))


def test_drawn_frost_has_its_footnote(build: Build) -> None:
    summary = summarise(build(shifts=("frost", "fog")))
    for text in (printed(summary, 200), markdown_table(summary)):
        assert "frost is drawn, milder than the published photographs" in text
    assert "frost is drawn" not in markdown_table(summarise(build(shifts=("fog",))))


def test_markdown_marks_gains_and_losses(build: Build) -> None:
    summary = summarise(build(entries=[*ENTRIES, HARMFUL], n=100))
    table = markdown_table(summary)
    mean = {row["entry"]: row for row in summary if row["shift"] == "mean"}
    cell = f"{100 * mean['diffusion-tta']['value']:.1f}"
    assert f"**{cell}** " in table
    lost = f"{100 * mean['harmful']['value']:.1f}"
    assert any(lost in part and "▼" in part for part in table.split("|"))
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in rows}) == 1


def test_intervals_are_skewed_where_they_are_and_cover_the_true_one(build: Build) -> None:
    summary = summarise(build(entries=ENTRIES[:1], shifts=()))

    def text(right: int, n: int) -> str:
        low, high = wilson(right, n)
        row = summary[0] | {"value": right / n, "ci_low": low, "ci_high": high, "n": n}
        return markdown_table([row]).splitlines()[2].split("|")[2].strip()

    assert text(40, 40) == "100.0 91–100"  # 91.24 to 100
    assert text(22, 40) == "55.0 39–70"  # 39.83 to 69.29
    assert text(9460, 10_000) == "94.6 94.1–95.1"  # 94.14 to 95.02


def test_seven_entries_fit_a_page_and_a_terminal(build: Build) -> None:
    entries = [ENTRIES[0], *({"entry": f"diffusion-tta-{i}", "method": "x"} for i in range(6))]
    summary = summarise(
        build(entries=entries, shifts=("contrast", "background", "rotation", "pepper", "clutter"), n=40)
    )
    summary = [row | {"value": 1.0, "ci_low": 0.912, "ci_high": 1.0} for row in summary]
    assert "100.0 91–100 │ 100.0 91–100" in printed(summary, 160)
    for width in (80, 120):
        narrow = printed(summary, width)
        assert narrow.count("91–100│91–100│") == 7 * 3
        assert "…" not in narrow


def test_more_entries_than_fit_are_tables_below_each_other(build: Build) -> None:
    """Every value whole: one that is cut reads as another."""
    entries = [ENTRIES[0], *({"entry": f"diffusion-tta-{i}", "method": "x"} for i in range(17))]
    lines = printed(summarise(build(entries=entries, shifts=FIFTEEN, n=10)), 80).splitlines()
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)
    headers = [line for line in lines if line.startswith("┃")]
    assert [name for line in headers for name in re.findall(r"\d+", line)] == [str(k) for k in range(1, 20)]
    rows = [line for line in lines if line.startswith("│diffusion-tta-7")]
    assert len(rows) == len(headers) > 1
    assert sum(len(re.findall(r"\d+\.\d[▲▼]?│", line)) for line in rows) == 17  # clean, the shifts and their mean


def test_what_stands_out_does_so_without_colours(build: Build) -> None:
    summary = summarise(build(entries=[*ENTRIES, HARMFUL], n=100))
    mean = {row["entry"]: f"{100 * row['value']:.1f}" for row in summary if row["shift"] == "mean"}
    text = printed(summary, 160)
    assert f"{mean['diffusion-tta']}▲" in text
    assert f"{mean['harmful']}▼" in text
    assert f"{mean['source']} " in text
    assert "▲: significantly above source; ▼: significantly below" in text


def test_an_incomplete_run_says_so(build: Build) -> None:
    run = build()
    plan(run, 40, [("clean", 0), *((shift, 3) for shift in (*SHIFTS, "snow"))])
    summary = summarise(run)
    note = "‡ incomplete: 15 of 18 cells; run the same command again to finish"
    mean = next(row for row in summary if (row["entry"], row["shift"]) == ("source", "mean"))
    for text in (printed(summary), markdown_table(summary)):
        assert note in text
        assert f"{100 * mean['value']:.1f}‡" in text
    plan(run, 40, [])
    assert "‡" not in printed(summarise(run))


def test_skipped_images_are_named(build: Build) -> None:
    run = build()
    for index in range(5):
        skip(run, "fog", 3, index)
    plan(run, 40, [])
    text = " ".join(printed(summarise(run)).split())
    assert "5 images skipped: img-0000 (the file is empty)," in text
    assert "img-0002 (the file is empty) and 2 more." in text
    assert "left: 40 on clean, gaussian_noise, defocus_blur and 1 more; 35 on fog." in text
    assert "The mean over shifts covers other images than clean." in text
    for shift in ("clean", *(set(SHIFTS) - {"fog"})):
        for index in range(5):
            skip(run, shift, 0 if shift == "clean" else 3, index)
    text = " ".join(printed(summarise(run)).split())
    assert "left: 35 on every shift." in text
    assert "other images than clean" not in text


def test_names_cannot_break_the_tables(build: Build) -> None:
    hostile = {"entry": "a|b[red]<b>", "method": "x", "needs_batch": False}
    summary = summarise(build(entries=[hostile], shifts=("fog",)))
    assert "a|b[red]<b>" in printed(summary)
    assert "a\\|b[red]&lt;b>" in markdown_table(summary)


def test_no_targets_print_dashes(build: Build) -> None:
    assert "–" in printed(summarise(build(targets=False)))
