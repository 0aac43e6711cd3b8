"""The page: what it says, what it marks, and that it needs nothing beside itself."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from diffcern.report import summarise, write_report
from diffcern.report.wording import NARROW, findings, interval, points, verdict

from .conftest import ENTRIES, SHIFTS, Build, build_run, plan, read, skip, write

HARMFUL = {
    "entry": "harmful",
    "method": "memo",
    "protocol": "episodic",
    "batch_size": 1,
    "needs_batch": False,
}
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Checks that elements nest, and collects text, attributes and ids."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.source = file.read_text(encoding="utf-8")
        self.feed(self.source)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default run, with its report; tests only read it."""
    path = build_run(tmp_path_factory.mktemp("report") / "run")
    write_report(path)
    return path


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return Page(run / "report.html")


def test_page_tells_the_verdict_and_the_numbers(run: Path, page: Page) -> None:
    summary = summarise(run)
    assert verdict(summary) in page.words
    assert (run / "summary.json").is_file()
    for row in summary:
        assert f"{100 * row['value']:.1f}" in page.words
    for title in ("Accuracy per shift", "What accuracy costs", "Does the loss go down?", "Before and after"):
        assert title in page.words
    assert "diffcern bench spec.toml --out DIR" in page.words
    assert 'name = "digits"' in page.words
    assert "the tent entry" in page.words  # an entry's description


def test_page_loads_nothing(page: Page) -> None:
    loads = [v for _, name, v in page.attributes if name in ("src", "href", "xlink:href", "action", "data")]
    assert loads
    assert all(value.startswith(("data:", "#")) for value in loads)
    assert not re.search(r"https?://|@import|url\((?!#)", page.source)
    assert "<script" not in page.source
    assert len(page.source) < 2_000_000


def test_same_folder_same_bytes(run: Path) -> None:
    first = (run / "report.html").read_bytes()
    assert write_report(run).read_bytes() == first


def test_ids_are_unique_and_references_resolve(page: Page) -> None:
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    references = [v[1:] for _, name, v in page.attributes if name == "xlink:href"]
    references += re.findall(r"url\(#([^)]*)\)", page.source)
    references += [value for _, name, value in page.attributes if name == "aria-labelledby"]
    assert set(references) <= set(ids)


def test_hostile_names_are_escaped(build: Build) -> None:
    bad = '<script>alert("x")</script>'
    entry = {"entry": bad, "method": bad, "protocol": bad, "batch_size": 1, "description": bad}
    run = build(entries=[ENTRIES[0], entry], shifts=(f"{bad}$\\frac$",), classes=[bad, f"'\"&{bad}"])
    (run / "spec.toml").write_text(f"</code>{bad}")
    page = Page(write_report(run))
    assert "<script" not in page.source
    assert not [value for _, name, value in page.attributes if name.startswith("on")]
    assert page.words.count(bad) > 10  # shown as text


def test_dagger_marks_entries_that_need_a_batch(page: Page) -> None:
    assert re.search(r"tent\s*<abbr class=\"dagger\"", page.source)
    assert not re.search(r"source\s*<abbr class=\"dagger\"", page.source)
    legends = re.findall(r'<ul class="legend".*?</ul>', page.source, flags=re.DOTALL)
    assert legends
    assert all("tent†" in legend and "source†" not in legend for legend in legends)
    assert "† needs a batch" in page.words


def test_cells_worse_than_source_are_marked(build: Build) -> None:
    page = Page(write_report(build(entries=[*ENTRIES, HARMFUL], n=100)))
    assert page.source.count('class="num heat worse marked"') >= 3
    assert page.words.count("significantly worse than source") >= 4  # in the cells and in the findings
    assert "harmful is significantly worse than source on" in page.words
    page = Page(write_report(build(entries=ENTRIES[:1])))
    assert "marked" not in re.sub(r"<style>.*?</style>", "", page.source, flags=re.DOTALL)


def test_tables_are_accessible(page: Page) -> None:
    assert page.source.count("<caption>") == page.source.count("<table>") == 3
    assert all(re.match(r'<th scope="(col|row)"', th) for th in re.findall(r"<th\b[^>]*>", page.source))
    assert not [1 for img in re.findall(r"<img[^>]*>", page.source) if "alt=" not in img]


def test_gallery_is_balanced_and_true(run: Path, page: Page) -> None:
    right = {(r["entry"], r["shift"], r["id"]): r["prediction"] == r["target"] for r in read(run)}
    ids = {i for _, _, i in right}
    pairs = [(right["source", s, i], right["diffusion-tta", s, i]) for s in SHIFTS for i in ids]
    for title, before, after in (("Fixed by", 0, 1), ("Broken by", 1, 0), ("Still wrong under", 0, 0)):
        count = pairs.count((bool(before), bool(after)))
        assert f"{title} diffusion-tta {count} of {len(pairs)} answers" in page.words
    assert 3 <= page.source.count("<article") <= 12
    assert page.source.count('class="pixels"') == 2 * page.source.count("<article")


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"entries": ENTRIES[:1]},
        {"entries": ENTRIES[1:]},  # no source
        {"shifts": ()},
        {"examples": False},
        {"targets": False},
        {"n": 1},
        {"shifts": tuple(f"s{i}" for i in range(15)), "severities": (1, 2, 3, 4, 5), "n": 12},
    ],
    ids=["one entry", "no source", "clean only", "no examples", "no targets", "one image", "15 x 5"],
)
def test_page_copes_with_less_and_more(build: Build, options: dict) -> None:
    run = build(**options)
    page = Page(write_report(run))
    assert "nan" not in page.words.split()
    assert "None" not in page.words
    assert verdict(summarise(run)) in page.words


def test_page_copes_with_bare_records(build: Build) -> None:
    run = build()
    for name in ("entries.json", "classes.json", "spec.toml", "examples.parquet", "timings/0.parquet"):
        (run / name).unlink()
    records = [row | {"probabilities": [], "loss_trace": []} for row in read(run)]
    write(run / "records" / "0.parquet", records)
    page = Page(write_report(run))
    assert "Accuracy per shift" in page.words
    assert "Does the loss go down?" not in page.words


def row(entry: str, shift: str, value: float, change: tuple[float, float, float] | None, **more: object) -> dict:
    names = ("difference_to_source", "difference_low", "difference_high")
    base: dict = {"entry": entry, "method": entry, "shift": shift, "severity": None, "needs_batch": False}
    base |= {"complete": True, "value": value, "ci_low": value, "ci_high": value}
    return base | dict(zip(names, change or (None,) * 3, strict=True)) | more


def test_verdict_on_a_gain() -> None:
    rows = [row("source", "fog", 0.43, None), row("source", "mean", 0.43, None)]
    rows += [row("a", "clean", 0.9, (-0.004, -0.012, 0.004)), row("a", "fog", 0.6, (0.183, 0.151, 0.214))]
    rows += [row("a", "mean", 0.612, (0.183, 0.151, 0.214))]
    assert verdict(rows) == (
        "a: 61.2 % over 1 shift, +18.3 points over source [15.1, 21.4]; clean unchanged (−0.4 [−1.2, 0.4])."
    )
    rows[2] |= {"difference_high": NARROW * 2}
    assert "clean not significantly changed" in verdict(rows)


def test_verdict_is_honest_about_losses() -> None:
    rows = [row("source", "mean", 0.5, None), row("source", "fog", 0.5, None)]
    lost = [*rows, row("a", "fog", 0.4, (-0.1, -0.15, -0.05)), row("a", "mean", 0.4, (-0.1, -0.15, -0.05))]
    assert verdict(lost) == ("No entry beats source. a: 40.0 % over 1 shift, −10.0 points to source [−15.0, −5.0].")
    assert findings(lost) == ["a is significantly worse than source on fog (−10.0)."]
    even = [*rows, row("a", "fog", 0.51, (0.01, -0.05, 0.07)), row("a", "mean", 0.51, (0.01, -0.05, 0.07))]
    assert verdict(even).startswith("No entry is significantly better than source. a: 51.0 %")
    assert findings(even) == []


def test_findings_name_what_is_incomplete(build: Build) -> None:
    run = build()
    kept = [r for r in read(run) if (r["entry"], r["shift"]) != ("tent", "fog") or r["index"] < 10]
    write(run / "records" / "0.parquet", kept)
    assert "tent is incomplete on fog: means are over what is there" in Page(write_report(run)).words


def test_an_incomplete_run_claims_no_final_numbers(build: Build) -> None:
    run = build()
    assert "ncomplete" not in Page(write_report(run)).words
    plan(run, 40, [("snow", 3)])
    words = Page(write_report(run)).words
    assert "Incomplete: 15 of 18 cells; run the same command again to finish So far: " in words
    assert re.search(r"So far: [\w-]+: [\d.]+‡ % over what is there of 5 shifts", words)
    assert "source, tent and diffusion-tta are incomplete on snow" in words


@pytest.mark.parametrize("kept", [("source", "clean"), ("tent", "clean"), ("diffusion-tta", "fog")])
def test_a_run_of_one_cell_has_a_page(build: Build, kept: tuple[str, str]) -> None:
    run = build()
    write(run / "records" / "0.parquet", [row for row in read(run) if (row["entry"], row["shift"]) == kept])
    plan(run, 40, [("clean", 0), *((shift, 3) for shift in SHIFTS)])
    words = Page(write_report(run)).words
    assert "Incomplete: 1 of 15 cells" in words
    assert "nan" not in words.split()


def test_skipped_images_are_on_the_page(build: Build) -> None:
    run = build()
    skip(run, "fog", 3, 7)
    words = Page(write_report(run)).words
    assert "1 image skipped: img-0007 (the file is empty)." in words
    assert "39 on fog" in words


def test_the_specification_names_no_preset_that_its_options_contradict(build: Build) -> None:
    run = build()
    (run / "spec.toml").write_text('[entries.tent]\nmethod = "tent"\npreset = "paper"\nprotocol = "online"\n')
    page = write_report(run).read_text()
    assert "preset" not in page
    assert "method = &#34;tent&#34;\nprotocol" in page


def test_wide_tables_show_that_they_scroll(page: Page) -> None:
    assert re.search(r"\.scroll \{[^}]*overflow-x: auto[^}]*no-repeat local,[^}]*no-repeat scroll", page.source)


def test_numbers_are_written_with_a_true_minus() -> None:
    assert points(-0.0123) == "−1.2"
    assert points(0.0123) == "+1.2"
    assert points(-0.0001) == "0.0"
    assert interval(-0.01, 0.02) == "[−1.0, 2.0]"


def test_the_page_is_called_as_the_specification(build: Build) -> None:
    folder = build()
    (folder / "spec.toml").write_text('name = "my bench"\n')
    assert "<h1>my bench" in write_report(folder).read_text()
