"""A thousand damaged inputs of every kind, the same every time: they are answered rightly, or refused with an error of
ours. `python benchmarks/fuzz.py` tries 10,000."""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path
from random import Random

import pytest

from diffcern.errors import DiffcernError, UsageError

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
fuzz = pytest.importorskip("fuzz", reason="the benchmarks are not here")
outcomes = importlib.import_module("fuzzing.outcomes")
Case, judge = outcomes.Case, outcomes.judge
COUNTS = {
    "images": 400,
    "specifications": 120,
    "options": 120,
    "models": 150,
    "runs": 30,
    "journals": 100,
    "tables": 150,
}


@pytest.fixture(autouse=True, scope="module")
def _quiet():
    fuzz.quiet()


@pytest.mark.slow
@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_damaged_input_is_answered_rightly_or_refused_clearly(kind, tmp_path):
    found = fuzz.fuzz(kind, range(COUNTS[kind]), 0, tmp_path)
    assert [outcome for outcome in found if outcome.name in fuzz.BAD] == []
    assert {outcome.name for outcome in found} == {"right", "clear"}


def test_inputs_are_a_function_of_their_number(tmp_path):
    maker = fuzz.KINDS["journals"](tmp_path)
    first, again = (maker.case(Random("0 journals 7")) for _ in range(2))
    assert first.what == again.what


def test_how_an_outcome_is_judged(monkeypatch):
    def fails(error: BaseException):
        def run() -> bool:
            raise error

        return run

    monkeypatch.setattr(outcomes, "LIMIT", 0.05)
    clear = UsageError("the labels are empty: give some")
    assert judge(Case("a", lambda: True)).name == "right"
    assert judge(Case("a", lambda: False)).name == "wrong"
    assert judge(Case("a", fails(clear))).name == "clear"
    assert judge(Case("a", fails(clear), whole=True)).name == "wrong"
    assert judge(Case("a", fails(DiffcernError("")))).name == "raw"  # says nothing
    assert judge(Case("a", fails(KeyError("x")))).name == "raw"
    assert judge(Case("a", fails(SystemExit(0)))).name == "raw"
    assert judge(Case("a", lambda: time.sleep(1) or True)).name == "hang"
    with pytest.raises(KeyboardInterrupt):
        judge(Case("a", fails(KeyboardInterrupt())))


def test_the_table_and_the_exit_code(monkeypatch, capsys):
    good = [outcomes.Outcome("right", "a"), outcomes.Outcome("clear", "b")]
    for found, code in ((good, False), ([*good, outcomes.Outcome("raw", "c", "KeyError: x")], True)):
        monkeypatch.setattr(fuzz, "fuzz", lambda kind, numbers, seed, folder, found=found: found)
        monkeypatch.setattr(sys, "argv", ["fuzz.py", "--kind", "images", "--count", str(len(found))])
        with pytest.raises(SystemExit) as ended:
            fuzz.main()
        assert ended.value.code == code
    shown = capsys.readouterr().out
    assert "raw" in shown
    assert "images 2: raw: c: KeyError: x" in shown
