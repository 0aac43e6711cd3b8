"""Progress inside an image: how far a command is, at what rate, and how long it takes, with a clock of its own."""

import io
import itertools

import pytest
import torch
from rich.console import Console
from rich.progress import Progress

from diffcern.cli import progress
from diffcern.cli.progress import Counter, Rate, duration, progress_of
from diffcern.data import encode_png, load_dataset
from diffcern.methods import build_method
from diffcern.types import Condition
from diffcern.watching import watching

CHEAP = {
    "diffusion-tta": {"steps": 3, "draws": 4, "optimizer": "sgd", "learning_rate": 0.0},
    "diffusion-classifier": {"draws": 6},
    "dusa": {"top_k": 2, "random_k": 1},
    "diffpure": {"start": 20, "steps": 5},
    "dda": {"start": 20, "steps": 5, "factor": 2},
    "gda": {"start": 20, "steps": 5, "views": 2},
}


@pytest.mark.parametrize("name", CHEAP)
def test_every_evaluation_is_told_and_as_many_were_announced(name, predictor, prior, task, inputs):
    prior.pixels = True
    method = build_method(name, predictor, prior, task, CHEAP[name])
    told = []
    with watching(told.append):
        method.step(method.init(), inputs[:1], 0)
    assert sum(told) == method.evaluations
    prior(torch.zeros(1, 3, 8, 8), torch.tensor([5]), Condition())
    assert sum(told) == method.evaluations  # nobody watches any more


def test_stages_are_announced_in_all(prior, task, inputs):
    options = {"keep": (2, 1), "samples": (2, 6), "draws": 6}
    method = build_method("diffusion-classifier", None, prior, task, options)
    told = []
    with watching(told.append):
        method.step(method.init(), inputs[:1], 0)
    assert sum(told) == method.evaluations == 4 * 2 + 2 * 4


def test_the_time_left_is_known_within_the_first_image():
    now = [0.0]
    counter = Counter(total=2, expected=900, clock=lambda: now[0])
    assert counter.text == "0/2"
    for _ in range(9):
        counter.evaluations += 10
        now[0] += 5
    assert counter.text == "0/2, 90 evaluations, 2/s, 14 min left"
    assert counter.share == pytest.approx(0.05)
    counter.evaluations, now[0] = 800, 400.0  # it took fewer than expected
    counter.image()
    assert counter.share == 0.5
    assert counter.text == "1/2, 800 evaluations, 2/s, 7 min left"
    counter.evaluations += 800
    counter.image()
    assert counter.text.startswith("2/2, 1,600 evaluations")
    assert "left" not in counter.text


def test_without_an_expectation_there_is_a_rate_and_no_time():
    now = itertools.count(1.0, 10.0)
    counter = Counter(total=1, clock=lambda: next(now))
    counter.evaluations = 50
    assert "evaluations" in counter.text
    assert "left" not in counter.text


def test_of_what_others_do_there_is_a_rate_of_images():
    now = [0.0]
    counter = Counter(total=100, clock=lambda: now[0])
    assert counter.text == "0/100"
    now[0] = 40.0
    for _ in range(20):
        counter.image()
    assert counter.text == "20/100, 0.5 images/s, 3 min left"


def test_a_bar_says_what_is_asked_or_how_much_is_done():
    for text, expected in (("90 evaluations, 2/s", "90 evaluations, 2/s"), ("", "0.5 units/s")):
        now = [0.0]
        with Progress(Rate("units"), disable=True, get_time=lambda now=now: now[0]) as bar:
            task = bar.add_task("", total=9, text=text)
            for _ in range(3):
                now[0] += 2
                bar.advance(task)
            assert str(Rate("units").render(bar.tasks[0])) == expected


def test_durations():
    assert [duration(s) for s in (3.4, 99, 101, 5000, 7200 * 3)] == ["3 s", "99 s", "2 min", "83 min", "6.0 h"]


def test_a_log_hears_of_it_now_and_then(monkeypatch):
    """Where no bar can move, a line is printed at most every half minute."""
    now = itertools.count(0.0, 8.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    out = io.StringIO()
    with progress_of("adapting", 1, Console(file=out, width=120), 900):
        for _ in range(20):
            from diffcern.watching import evaluated

            evaluated(10)
    lines = [line for line in out.getvalue().splitlines() if "evaluations" in line]
    assert 3 <= len(lines) <= 12
    assert lines[0].startswith("adapting: 0/1, ")


def test_commands_show_it(cli, tmp_path, monkeypatch):
    """From the command line down to the denoiser."""
    (tmp_path / "7.png").write_bytes(encode_png(load_dataset("embedded:digits")[0].image))
    counters = []
    original = Counter.__init__

    def remember(self, *arguments, **options):
        original(self, *arguments, **options)
        counters.append(self)

    monkeypatch.setattr(Counter, "__init__", remember)
    models = ["--predictor", "embedded:digits", "--prior", "embedded:digits"]
    assert cli("adapt", tmp_path / "7.png", *models, "--out", tmp_path / "a.csv")[0] == 0
    assert (counters[-1].expected, counters[-1].evaluations, counters[-1].images) == (20, 20, 1)
    assert cli("classify", tmp_path / "7.png", "--prior", "embedded:digits")[0] == 0
    assert counters[-1].expected == 640  # at most: a race ends earlier
    assert 30 <= counters[-1].evaluations < 640
    assert cli("purify", tmp_path / "7.png", "--prior", "embedded:digits", "-o", tmp_path / "out")[0] == 0
    assert (counters[-1].expected, counters[-1].evaluations) == (3, 3)
