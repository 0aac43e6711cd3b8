"""What the documentation's site is made of, without building it: pages, examples, and commands that parse."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest
import typer.main

from diffcern.cli import app

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if path.relative_to(DOCS).parts[0] not in ("api", "gallery"))
MADE = {
    "findings",
    "contributing",
    "releasing",
    "changelog",
    "gallery/index",
}  # when the site is built, as the pages of the API are
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
BLOCK = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[str]:
    """The commands of `diffcern` in a page's blocks for a shell, as one line each, but for those with variables."""
    lines = "".join(BLOCK.findall(text)).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if re.match(r"\s*diffcern ", line) and "$" not in line]


COMMANDS = sorted({each for page in (ROOT / "README.md", *PAGES) for each in commands(page.read_text())})


def test_every_page_is_in_the_navigation_and_nothing_else():
    index = (DOCS / "index.md").read_text()
    lists = re.findall(r"^```\{toctree\}\n(.*?)^```", index, re.MULTILINE | re.DOTALL)
    listed = [line for each in lists for line in each.splitlines() if line and not line.startswith(":")]
    own = {path.relative_to(DOCS).with_suffix("").as_posix() for path in PAGES} - {"index"} - MADE
    assert len(listed) == len(set(listed))
    assert {page for page in listed if not page.startswith("api/")} - MADE == own
    assert set(listed) >= MADE


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_somewhere_where_the_site_does_not_look(page):
    text = (ROOT / page).read_text()
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert not [link for link in links if link and not (ROOT / link).exists()]


def test_tables_of_runs_are_what_their_summaries_say(monkeypatch):
    monkeypatch.syspath_prepend(DOCS)
    tables = importlib.import_module("tables")
    marked = [page for page in tables.PAGES if tables.MARK.search(page.read_text())]
    assert len(marked) >= 3
    for page in marked:
        text = page.read_text()
        assert tables.written(text) == text, f"python docs/tables.py writes {page.name}"
    assert tables.written(text.replace(" | ", " | 9")) != text.replace(" | ", " | 9")  # a figure typed by hand


def test_one_number_of_a_run_is_written_within_a_line(monkeypatch):
    monkeypatch.syspath_prepend(DOCS)
    tables = importlib.import_module("tables")
    line = "| fog | <!-- value: scenes-segmentation source fog -->{}<!-- --> |"
    assert tables.written(line.format("9")) == line.format("47.0")
    with pytest.raises(SystemExit, match="scenes-segmentation has no source under rain"):
        tables.written(line.replace(" fog -->", " rain -->").format("9"))


def test_differences_to_source_are_written_for_every_metric(monkeypatch):
    monkeypatch.syspath_prepend(DOCS)
    tables = importlib.import_module("tables")
    header, _, source, *others = tables.table("kitchen", " entries=source,dda differences=mean").splitlines()
    assert header.count("|") == source.count("|") == 8
    assert source.startswith("| source | 54.3 |  | 0.248 |")
    assert len(others) == 1
    assert re.match(r"\| dda \| 54\.\d \| [+−]\d\.\d \[.*\| 20 \|$", others[0])
    with pytest.raises(SystemExit, match="kitchen has no shift rain"):
        tables.table("kitchen", " differences=rain")


def test_a_new_table_is_written_between_its_own_marks(monkeypatch):
    monkeypatch.syspath_prepend(DOCS)
    tables = importlib.import_module("tables")
    begin, end = "<!-- table: digits-200 -->\n", "<!-- end of table -->\n"
    written = tables.written(f"{begin}{end}between\n{begin}old\n{end}")
    assert written.count("between") == 1
    assert written.count("| source |") == 2
    assert tables.written(written) == written
    for odd in (f"{begin}{begin}{end}", f"{begin}text\n", f"text\n{end}"):
        with pytest.raises(SystemExit, match="one mark alone"):
            tables.written(odd)


def test_there_are_examples_enough():
    assert len(EXAMPLES) >= 12


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_asks_a_question_is_short_and_shows_something(path):
    text = path.read_text()
    module = ast.parse(text)
    compile(module, path, "exec")
    title, line, *_ = (ast.get_docstring(module) or "\n").splitlines()
    assert title.endswith("?")
    assert line == "=" * len(title)
    assert len(text.splitlines()) < 60
    assert "plt.show()" in text


def refusal(line: str) -> str:
    """Why a command line does not parse, empty where it does; nothing is run."""
    if braces := re.search(r"\{\d+\.\.\d+\}", re.sub(r"'[^']*'|\"[^\"]*\"", "", line)):
        return f"a shell makes many arguments of {braces[0]}: it needs quotes"
    command, rest = typer.main.get_command(app), shlex.split(line, comments=True)[1:]
    while groups := getattr(command, "commands", None):
        if rest[0] not in groups:
            return f"no command {rest[0]}"
        command, rest = groups[rest[0]], rest[1:]
    try:
        command.make_context(command.name, rest)
    except Exception as error:  # of click, or of the copy that typer brings
        return f"{type(error).__name__}: {error}"
    return ""


def test_there_are_commands_in_the_documents():
    assert len(COMMANDS) > 50


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_in_the_documents_parses(line):
    assert not refusal(line)


def test_others_do_not():
    assert "colour" in refusal("diffcern adapt photos --predictor P --colour red --out a.csv")
    assert "integer" in refusal("diffcern match pairs.parquet --prior R --draws many")
    assert refusal("diffcern guess photos")
    assert "quotes" in refusal("diffcern classify webdataset:x-{00..11}.tar --prior R")
