"""`diffcern app` in a browser: pictures, shifts, answers, why, runs, wrong files, two visitors."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch
from PIL import Image
from report.conftest import build_run, read, write

from diffcern.data import encode_png, load_dataset

pytest.importorskip("nicegui", reason="no NiceGUI: pip install 'diffcern[app]'")
pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def address(browser, tmp_path_factory):
    """The address of a server of its own process, as the command starts it."""
    folder = tmp_path_factory.mktemp("app")
    build_run(folder / "runs" / "weather", n=6, shifts=("fog",), severities=(3,))
    build_run(folder / "runs" / "unfinished", n=6, shifts=("fog",), severities=(3,))
    there = [row for row in read(folder / "runs" / "unfinished") if row["entry"] == "source"]
    write(folder / "runs" / "unfinished" / "records" / "0.parquet", there[:8])
    shutil.copytree(Path(__file__).parents[1] / "jobs" / "old" / "bench", folder / "runs" / "older")
    (folder / "runs" / "broken").mkdir()
    (folder / "runs" / "broken" / "spec.toml").write_text("no specification")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code = "from diffcern.cli import main; main()"
    asked = ["app", "--no-browser", "--port", str(port), "--runs", str(folder / "runs"), "--device", "cpu"]
    # NiceGUI takes a process for one of its own tests where pytest runs above it
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    process = subprocess.Popen([sys.executable, "-c", code, *asked], cwd=folder, env=outside)
    place = f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            urllib.request.urlopen(place, timeout=5).close()
            break
        except OSError:
            assert process.poll() is None
            time.sleep(0.1)
    yield place
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0


@pytest.fixture
def opened(new_page, address):
    def opened(**how):
        page = new_page(**how)
        page.goto(address)
        page.get_by_alt_text("The picture as it is").wait_for(timeout=30_000)
        return page

    return opened


def shifted(page, name="contrast"):
    page.get_by_role("combobox", name="Shift").click()
    page.get_by_role("option", name=name, exact=True).click()
    page.get_by_alt_text(re.compile(f"under {name}")).wait_for()


def test_a_picture_is_shifted_answered_and_explained(opened, screenshot):
    page = opened()
    shifted(page)
    before = page.get_by_alt_text(re.compile("under contrast")).get_attribute("src")
    page.get_by_role("slider", name="Severity").locator("[tabindex]").focus()
    page.keyboard.press("ArrowRight")
    page.get_by_alt_text("The picture under contrast, severity 5").wait_for()
    assert page.get_by_alt_text(re.compile("under contrast")).get_attribute("src") != before
    page.get_by_role("button", name="Go").click()
    for title in ("The model alone", "Diffusion-TTA", "Diffusion Classifier"):
        card = page.get_by_role("group", name=title, exact=True)
        card.wait_for(timeout=30_000)
        assert re.search(r"\d – (right|wrong: it is \d)", card.text_content())
    page.get_by_role("button", name="Why?").click()
    page.get_by_role("group", name="Explanation").wait_for(timeout=30_000)
    assert "N = 48 draws" in page.get_by_role("group", name="Explanation").text_content()
    page.evaluate("window.scrollTo(0, 0)")
    screenshot(page, "app-try")


def test_a_picture_of_ones_own_and_files_that_are_none(opened):
    page = opened()
    first = page.get_by_alt_text("The picture as it is").get_attribute("src")
    chooser = page.locator("input[type=file]")
    chooser.set_input_files({"name": "notes.png", "mimeType": "image/png", "buffer": b"these are words"})
    page.get_by_text(re.compile("cannot read image 'notes.png': not an image")).wait_for()
    assert page.get_by_alt_text("The picture as it is").get_attribute("src") == first  # nothing was lost
    own = encode_png(load_dataset("embedded:digits/validation")[5].image)
    chooser.set_input_files({"name": "own.png", "mimeType": "image/png", "buffer": own})
    page.wait_for_function(
        "before => { const now = document.querySelector('img[alt=\"The picture as it is\"]'); "
        "return now && now.src !== before }",
        arg=first,
    )
    page.get_by_role("button", name="Go").click()
    page.get_by_role("group", name="Diffusion-TTA", exact=True).wait_for(timeout=30_000)
    assert "right" not in page.get_by_role("group", name="The model alone").text_content()  # nobody knows


def test_a_picture_of_200_megapixels_is_shrunk(opened):
    """What is refused for its size is tested with other damaged input: tests/data."""
    page = opened()
    content = io.BytesIO()
    Image.new("1", (15_000, 14_000), 1).save(content, "PNG")
    huge = {"name": "huge.png", "mimeType": "image/png", "buffer": content.getvalue()}
    page.locator("input[type=file]").set_input_files(huge)
    page.wait_for_function(
        "() => { const now = document.querySelector('img[alt=\"The picture as it is\"]'); "
        "return now && now.naturalWidth == 320 && now.naturalHeight == 299 }",
        timeout=30_000,
    )
    assert page.get_by_role("button", name="Go").is_enabled()


def test_a_picture_too_small_for_the_shift_leaves_none_on_the_page(opened):
    """The one before stayed, under a shift that it was not shown with."""
    page = opened()
    shifted(page, "frost")
    tiny = encode_png(torch.zeros(3, 1, 1))
    page.locator("input[type=file]").set_input_files({"name": "tiny.png", "mimeType": "image/png", "buffer": tiny})
    page.get_by_text(re.compile(r"cannot read image 'tiny\.png'.*choose another picture, or another shift")).wait_for()
    assert page.get_by_alt_text(re.compile("The picture")).count() == 0
    assert not page.get_by_role("button", name="Go").is_enabled()


def test_pages_say_their_language_and_what_they_are(opened):
    page = opened()
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.get_by_role("heading", level=1).text_content() == "diffcern"
    assert page.get_by_role("main").count() <= 1


def enter(page, world):
    page.get_by_role("combobox", name="What to try").click()
    page.get_by_role("option", name=world).click()
    page.get_by_role("checkbox", name="DDA").wait_for(timeout=30_000)
    page.get_by_alt_text("The picture as it is").wait_for(timeout=30_000)


def test_an_answer_is_watched_as_it_comes(opened):
    page = opened()
    enter(page, "Scenes, as masks")
    shifted(page, "gaussian_noise")
    page.get_by_role("button", name="Go").click()
    coming = page.get_by_role("group", name="Diffusion-TTA, on its way")
    coming.get_by_text(re.compile("The loss, from .* in [2345] steps")).wait_for(timeout=30_000)
    assert re.search(r"\d evaluations, of about 80", coming.text_content())
    page.get_by_role("group", name="Diffusion-TTA", exact=True).wait_for(timeout=30_000)
    assert coming.count() == 0


def test_depths_say_how_far(opened):
    page = opened()
    enter(page, "Scenes, as depths")
    page.get_by_role("button", name="Go").click()
    alone = page.get_by_role("group", name="The model alone")
    alone.get_by_text(re.compile(r"\d+\.\d m \(bright\) to \d+\.\d m \(dark\)")).wait_for(timeout=30_000)


def test_captions_are_told_apart_and_may_be_ones_own(opened, screenshot):
    page = opened()
    enter(page, "Scenes, and what is said of them")
    assert page.get_by_text("Go: what the model alone says").count() == 1
    texts = page.get_by_role("textbox", name="What to tell apart")
    first, second = texts.input_value().splitlines()
    page.get_by_role("button", name="Go").click()
    card = page.get_by_role("group", name="Diffusion Classifier", exact=True)
    card.wait_for(timeout=30_000)
    assert first in card.text_content()
    assert second in card.text_content()
    assert re.search("– (right|wrong: it is a )", card.text_content())
    page.get_by_role("button", name="Why?").click()
    page.get_by_role("group", name="Explanation").wait_for(timeout=30_000)
    assert page.get_by_role("group", name="Explanation").get_by_alt_text(re.compile("blue: for a ")).count() == 1
    page.get_by_role("group", name="Explanation").evaluate("card => card.scrollIntoView({block: 'center'})")
    screenshot(page, "app-captions")
    texts.fill("a red cone\n\n a blue  ring\na red cone")
    page.get_by_text("Go: what the model alone says").wait_for()  # what was answered is of other captions
    page.get_by_role("button", name="Go").click()
    card.wait_for(timeout=30_000)
    assert "a blue ring" in card.text_content()
    assert "right" not in card.text_content()  # nobody knows
    texts.fill("a red cone")
    page.get_by_text("there is nothing to tell apart: write two labels or more").first.wait_for()
    texts.fill("a red cone\na zeppelin")
    page.get_by_text("Go: what the model alone says").wait_for()
    page.get_by_role("button", name="Go").click()
    page.get_by_text(re.compile("zeppelin")).first.wait_for()


def test_labels_that_change_while_a_method_works_stop_it(opened):
    page = opened()
    enter(page, "Scenes, and what is said of them")
    page.get_by_role("button", name="Go").click()
    page.get_by_role("group", name="The model alone").wait_for(timeout=30_000)
    page.get_by_role("textbox", name="What to tell apart").fill("a red cone\na blue ring\na green cube")
    page.get_by_text("Stopped.").first.wait_for(timeout=30_000)
    page.get_by_text("Go: what the model alone says").wait_for()
    page.get_by_role("button", name="Go").click()
    alone = page.get_by_role("group", name="The model alone")
    alone.get_by_text("a green cube").first.wait_for(timeout=30_000)
    assert page.get_by_text("Go: what the model alone says").count() == 0


def test_what_is_asked_is_about_the_picture_that_is_there(opened):
    """Go, and another picture at once: answers to the first stood under the second."""
    page = opened()
    enter(page, "Scenes, as masks")
    shifted(page, "glass_blur")
    page.get_by_role("button", name="Go").dblclick()
    page.get_by_role("button", name="Picture 3", exact=True).click()
    page.get_by_text("Go: what the model alone says").wait_for(timeout=30_000)
    page.wait_for_timeout(1500)
    assert page.get_by_role("group", name="The model alone").count() == 0
    assert page.get_by_text("Go: what the model alone says").count() == 1


def test_the_world_that_was_chosen_last_is_entered(opened):
    page = opened()
    enter(page, "Scenes, and what is said of them")
    page.get_by_role("button", name="Go").click()
    for world in ("Scenes, as masks", "Digits"):
        page.get_by_role("combobox", name="What to try").click()
        page.get_by_role("option", name=world, exact=True).click()
    page.get_by_role("checkbox", name="MEMO").wait_for(timeout=30_000)
    page.get_by_alt_text("The picture as it is").wait_for(timeout=30_000)
    page.wait_for_timeout(500)
    assert page.get_by_role("checkbox", name="MEMO").count() == 1
    assert not page.get_by_role("textbox", name="What to tell apart").is_visible()


def test_it_stops(opened):
    page = opened()
    enter(page, "Scenes, as masks")
    page.get_by_role("button", name="Go").click()
    page.get_by_role("group", name="The model alone").wait_for(timeout=30_000)
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Stopped.").wait_for(timeout=30_000)
    page.get_by_role("button", name="Go").wait_for()
    assert page.get_by_role("button", name="Go").is_enabled()


def test_two_visitors_do_not_meet(opened):
    one, other = opened(), opened(width=390, dark=True)
    shifted(one, "noise")
    assert other.get_by_alt_text(re.compile("under")).count() == 0
    one.get_by_role("button", name="Go").click()
    one.get_by_role("group", name="The model alone").wait_for(timeout=30_000)
    assert other.get_by_role("group", name="The model alone").count() == 0
    assert other.evaluate("document.documentElement.scrollWidth") <= 390


def test_two_visitors_who_ask_at_once_have_answers_of_their_own(opened):
    pages = opened(), opened()
    shifted(pages[0], "noise")
    shifted(pages[1], "contrast")
    for page in pages:
        page.get_by_role("button", name="Go").click()
    for page, other in zip(pages, ("contrast", "noise"), strict=True):
        page.get_by_role("group", name="Canonical view", exact=True).wait_for(timeout=60_000)
        assert page.get_by_role("group").filter(has_text="evaluations").count() == 4
        assert page.get_by_alt_text(re.compile(f"under {other}")).count() == 0


@pytest.mark.parametrize(
    ("run", "says"), [("unfinished", "Incomplete: 2 of 6 cells; run the same"), ("older", "source")]
)
def test_runs_that_are_unfinished_or_of_another_version_open(new_page, address, run, says):
    page = new_page()
    page.goto(f"{address}/runs?run={run}")
    view = page.frame_locator("iframe")
    view.locator("#rows tr").first.wait_for(timeout=30_000)
    assert says in view.locator("body").text_content()


def test_runs_are_opened_and_nothing_else(new_page, address):
    page = new_page()
    page.goto(f"{address}/runs")
    page.get_by_role("combobox", name="Run").click()
    page.get_by_role("option", name="weather").click()
    page.get_by_role("button", name="Open").click()
    view = page.frame_locator("iframe")
    view.locator("#rows tr").first.wait_for(timeout=30_000)
    assert view.locator("#rows tr").count() == 6
    assert page.url.endswith("/runs?run=weather")
    page.goto(page.url)  # the address of a run opens it again
    page.frame_locator("iframe").locator("#rows tr").first.wait_for(timeout=30_000)
    page.get_by_role("combobox", name="Run").click()
    page.get_by_role("option", name="broken").click()
    page.get_by_role("button", name="Open").click()
    page.get_by_text(re.compile(r"broken.*")).first.wait_for()
    page.wait_for_function("() => !document.querySelector('iframe')")
    page.goto(f"{address}/runs?run=../elsewhere")
    page.get_by_text("There is no run ../elsewhere here").wait_for()
    for path in ("/views/../app/serve.py", "/views/%2e%2e/%2e%2e/etc/hostname", "/views//etc/hostname", "/views/"):
        with pytest.raises(urllib.error.HTTPError, match=r"404|403|400"):
            urllib.request.urlopen(address + path, timeout=5)
