"""The tables of the terminal and of the docs."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from diffcern.report import print_table, summarise
from diffcern.report.tables import markdown_table

from .conftest import ENTRIES, Build

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


def test_markdown_marks_gains_and_losses(build: Build) -> None:
    summary = summarise(build(entries=[*ENTRIES, HARMFUL], n=100))
    table = markdown_table(summary)
    mean = {row["entry"]: row for row in summary if row["shift"] == "mean"}
    cell = f"{100 * mean['diffusion-tta']['value']:.1f}"
    assert f"**{cell} ±" in table
    lost = f"{100 * mean['harmful']['value']:.1f}"
    assert any(lost in part and "▼" in part for part in table.split("|"))
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in rows}) == 1


def test_names_cannot_break_the_tables(build: Build) -> None:
    hostile = {"entry": "a|b[red]<b>", "method": "x", "needs_batch": False}
    summary = summarise(build(entries=[hostile], shifts=("fog",)))
    assert "a|b[red]<b>" in printed(summary)
    assert "a\\|b[red]&lt;b>" in markdown_table(summary)


def test_no_targets_print_dashes(build: Build) -> None:
    assert "–" in printed(summarise(build(targets=False)))
