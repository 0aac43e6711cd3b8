"""The figures: labels that can be read and told apart, axes that show what they should."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from diffcern.report import summarise
from diffcern.report.drawing import FRAME, marks
from diffcern.report.plots import _apart, all_plots, cost
from diffcern.report.records import load
from diffcern.report.tempered import tempered

from .conftest import ENTRIES, Build, read, write


def rows(points: list[tuple[float, float]], **more: Any) -> list[dict[str, Any]]:
    """Summary rows of entries entry-0, entry-1, ... at (evaluations, accuracy)."""
    base = {"shift": "clean", "severity": 0, "needs_batch": False, "complete": True} | more
    return [
        base | {"entry": f"entry-{i}", "nfe_forward": x, "value": y, "ci_low": y - 0.01, "ci_high": min(1, y + 0.01)}
        for i, (x, y) in enumerate(points)
    ]


def svg(summary: list[dict[str, Any]], height: float = 2.3) -> str:
    plot = cost(summary, height)
    assert plot is not None
    return plot.svg


@pytest.mark.parametrize("y", [1.0, 0.5, 0.01])
def test_every_point_of_a_crowd_has_its_name_inside_the_figure(y: float) -> None:
    drawn = svg(rows([(0, 0.1), *((x, y) for x in (40, 50, 60, 80, 100, 120))]))
    width, height = map(float, re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawn)[0])
    at = {name: (float(x), float(y)) for x, y, name in re.findall(r'x="([\d.]+)" y="([\d.]+)"[^>]*>(entry-\d)<', drawn)}
    at |= {n: (float(x), float(y)) for x, y, n in re.findall(r"translate\(([\d.]+) ([\d.]+)\)[^>]*>(entry-\d)<", drawn)}
    assert len(at) == 7
    assert all(0 <= x < width and 6 < y < height for x, y in at.values())
    heights = sorted(y for name, (x, y) in at.items() if name != "entry-0")
    assert min(np.diff(heights)) > 9  # the size of the letters


def test_labels_keep_their_order_and_distance_and_move_both_ways() -> None:
    placed = _apart(np.array([0.5, 0.5, 0.5, 0.9]), 0.1)
    assert placed == pytest.approx([0.4, 0.5, 0.6, 0.9])
    assert _apart(np.array([0.99, 1.0, 1.0]), 0.1) == pytest.approx([0.8, 0.9, 1.0])
    crowd = _apart(np.ones(30), 0.1)  # more than fit
    assert crowd == pytest.approx(np.linspace(0, 1, 30))


def test_the_cost_axis_ends_at_a_tick() -> None:
    assert ">100%<" in svg(rows([(0, 0.106), (50, 0.91), (160, 0.75)]))


def test_an_incomplete_mean_is_marked() -> None:
    assert ">entry-1‡<" in svg(rows([(0, 0.1), (50, 0.9)], complete=False))


def test_the_tall_figure_is_as_high_as_those_beside_it(build: Build) -> None:
    entries = [*ENTRIES, *({"entry": f"more-{i}", "method": "x"} for i in range(4))]
    run = load(build(entries=entries, shifts=[f"s{i}" for i in range(8)]))
    main, *beside = (
        float(re.findall(r'viewBox="0 0 [\d.]+ ([\d.]+)"', p.svg)[0]) for p in all_plots(run, summarise(run.path))
    )
    assert len(beside) == 4
    assert main >= sum(beside) + 72 * FRAME * 3 - 5


def test_ten_entries_look_different() -> None:
    found = marks(["source", *(f"entry-{i}" for i in range(10))])
    assert len({(mark.css, mark.marker) for mark in found.values()}) == 11


def test_report_says_what_a_temperature_would_do(build: Build) -> None:
    """The fake answers of source and tent are surer than they are right: a temperature makes their error smaller."""
    path = build(n=120)
    rows = read(path)
    for entry in ENTRIES:  # a file for each entry, as a bench writes them
        write(path / "records" / f"{entry['entry']}--0.parquet", [r for r in rows if r["entry"] == entry["entry"]])
    (path / "records" / "0.parquet").unlink()
    run = load(path)
    plots = {plot.title: plot for plot in all_plots(run, summarise(run.path))}
    for title in ("Is confidence honest?", "How often are sure answers wrong?"):
        assert "→ and dotted: after a temperature" in plots[title].caption
    said = re.findall(r"([\w-]+) ([\d.]+) → ([\d.]+)", plots["Is confidence honest?"].caption)
    assert [name for name, *_ in said] == ["source", "tent", "diffusion-tta"]
    assert all(float(after) < float(before) for _, before, after in said[:2]), said


def test_no_temperature_is_fitted_to_fewer_than_twenty_answers(build: Build) -> None:
    run = load(build(n=19, shifts=("fog",)))
    assert tempered(run) == {}
    assert not any("after a temperature" in plot.caption for plot in all_plots(run, summarise(run.path)))
