"""How loud a command is, what a shell completes, and where the version stands."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

import diffcern
from diffcern.cli import bars, completing, consoles
from diffcern.cli.consoles import Voice, results
from diffcern.data import EMBEDDED
from diffcern.methods import METHODS
from diffcern.watching import doing, evaluated, listening, note

ROOT = Path(__file__).parents[1]


@pytest.fixture
def terminal(monkeypatch) -> Voice:
    voice = Voice()
    voice.console = Console(file=io.StringIO(), force_terminal=True, width=80, no_color=True)
    monkeypatch.setattr(consoles, "_voice", [voice])
    return voice


def test_quiet_leaves_results_and_errors(cli, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    command = ("classify", tmp_path, "--prior", "embedded:digits")
    code, out, err = cli(*command)
    assert (code, out) == (1, "")
    assert "skipped broken.jpg" in err
    assert cli(*command, "--quiet") == (1, "", "")
    code, out, err = cli("-q", "classify", tmp_path / "nowhere", "--prior", "embedded:digits")
    assert (code, out) == (1, "")
    assert err.startswith("error: no such file")


def test_verbose_says_what_is_loaded_from_where_and_where_an_error_comes_from(cli, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    _, _, err = cli("classify", tmp_path, "--prior", "embedded:digits", "--verbose")
    assert re.search(r"loading the prior embedded:digits: \d+\.\d\d s", err)
    assert "digits-prior" in err
    _, _, err = cli("-v", "classify", tmp_path, "--prior", "nothing")
    assert "Traceback" in err
    assert "error: unknown prior 'nothing'" in err
    assert cli("list", "-q", "-v")[0] == 2


def test_the_line_that_waits_ends_before_results(terminal):
    with consoles.waiting():
        with doing("loading the model"):
            shown = terminal._line
            assert shown is not None
            assert "loading the model" in str(shown.status)
        results()
        assert terminal._line is None
        with doing("something after it"):
            assert terminal._line is None


def test_the_line_leaves_room_for_bars_and_comes_back_after_them(terminal):
    with consoles.waiting():
        with bars.Bars().rows("classifying", 1) as heard:
            assert terminal._line is None
            heard({"id": "a", "error": None})
        assert terminal._line is not None
        with bars.Bars().stages():
            assert terminal._line is None
        with doing("writing the report"):
            assert "writing the report" in str(terminal._line.status)
    assert terminal._line is None
    with bars.Bars().stages():
        pass
    assert terminal._line is None


@pytest.mark.parametrize("staged", [bars.one_bar, bars.bar_for_each])
def test_bars_are_whole_at_80_columns(terminal, staged):
    with staged(terminal.console) as report:
        report(3, 1000, "diffusion-classifier on blur 4")
        evaluated(9)
    shown = terminal.console.file.getvalue()
    assert "diffusion-classifier on blur 4" in shown
    assert "9 evaluations" in shown
    assert "…" not in shown


def test_nobody_listens_outside():
    heard = []

    class Ears:
        def begun(self, what):
            heard.append(what)

        def done(self, what, seconds):
            heard.append((what, seconds >= 0))

        noted = begun

    with listening(Ears()), doing("a"):
        note("b")
    with doing("c"):
        note("d")
    assert heard == ["a", "b", ("a", True)]


def test_what_is_completed_exists(monkeypatch, cli):
    assert tuple(METHODS) == completing.METHODS
    assert sorted(completing.DATA) == sorted(EMBEDDED)
    monkeypatch.setenv("_DIFFCERN_COMPLETE", "complete_bash")
    for words, wanted in (("match --stop r", "race"), ("bench scenes-d", "scenes-depth"), ("adapt --task d", "depth")):
        monkeypatch.setenv("COMP_WORDS", f"diffcern {words}")
        monkeypatch.setenv("COMP_CWORD", str(len(words.split())))
        assert cli()[1].split() == [wanted]


def test_the_version_is_one(cli):
    version = re.escape(diffcern.__version__)
    assert cli("--version")[1] == f"diffcern {diffcern.__version__}\n"
    assert re.search(rf"^version: {version}$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert 'dynamic = ["version"]' in (ROOT / "pyproject.toml").read_text()
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert "## [Unreleased]" in changes


@pytest.mark.parametrize("command", ["", "adapt", "align", "calibrate", "train prior", "list"])
def test_help_and_lists_fit_80_columns_whole(cli, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = cli(*command.split(), *([] if command == "list" else ["--help"]))
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert "…" not in out
    assert out.count("...\n") == out.count("[ARGS]...\n")
