"""A view in a browser, from a disk: lists, links, keys, a phone, the dark, and an id that is not polite."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import pytest
from report.conftest import build_run

import diffcern.report.view
from diffcern.report import write_view

pytestmark = [pytest.mark.browser, pytest.mark.slow]
NASTY = "a/</script><img src=x onerror=alert(1)>\"'&#?%\n.png"  # before all others
COUNT = 70  # images, of which a page of the list holds 50


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The address of a view, one of whose ids holds everything that needs escaping."""
    folder = tmp_path_factory.mktemp("browser")
    run = build_run(folder / "run", n=COUNT, shifts=("fog", "contrast"), severities=(1, 3))
    for file in [*run.glob("*/*.parquet"), run / "examples.parquet"]:
        table = pq.read_table(file)
        renamed = pa.compute.if_else(pa.compute.equal(table["id"], "img-0000"), NASTY, table["id"])
        pq.write_table(table.set_column(table.schema.get_field_index("id"), "id", renamed), file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diffcern.report.view, "report_page", lambda *_: "<!doctype html><title>report</title>")
        return write_view(run, folder / "site").page


def opened(page, site, place=""):
    page.goto(f"{site.as_uri()}{place}")
    page.wait_for_function("() => document.getElementById('count').textContent.includes('of') || !image.hidden")
    return page


def count(page) -> str:
    return page.text_content("#count")


def test_the_list_shows_what_filters_and_search_leave(page, site):
    opened(page, site)
    assert count(page) == f"1–50 of {COUNT} images"
    assert page.locator("#rows tr").count() == 50
    page.select_option("[name=entry]", "diffusion-tta")
    page.select_option("[name=shift]", "fog")
    page.select_option("[name=severity]", "3")
    page.select_option("[name=outcome]", "repaired")
    outcomes = page.locator("#rows tr td:last-child").all_text_contents()
    assert 0 < len(outcomes) < 50
    assert set(outcomes) == {"repaired"}
    page.select_option("[name=outcome]", "right")
    assert {*page.locator("#rows tr td:last-child").all_text_contents()} == {"right", "repaired"}
    page.select_option("[name=outcome]", "")
    page.fill("[name=q]", "G-001")
    assert count(page) == "1–10 of 10 images"
    page.fill("[name=q]", "nowhere")
    assert count(page) == "0 images"


def test_a_link_opens_an_image_with_its_filters(page, site):
    opened(page, site, "#/image/img-0003?shift=fog&entry=diffusion-tta")
    page.wait_for_selector("#image h2")
    assert page.text_content("#image h2") == "img-0003"
    assert page.locator("#image h3").all_text_contents() == ["fog 1", "fog 3"]
    assert page.locator("#image table").first.locator("tbody tr").count() == 3
    assert page.locator("#image .trace polyline").first.get_attribute("points").count(" ") == 5
    assert page.evaluate("() => document.activeElement.tagName") == "H2"
    page.wait_for_function("() => [...document.images].some(image => image.naturalWidth === 8)")
    page.click("text=To the list")
    assert page.input_value("[name=shift]") == "fog"
    assert page.locator("tr.current a").text_content() == "img-0003"


def test_keys_lead_through_the_list_and_the_images(page, site):
    opened(page, site)
    page.evaluate("() => mark(49)")
    page.keyboard.press("j")
    page.wait_for_function("() => document.getElementById('count').textContent.startsWith('51')")
    assert page.locator("tr.current a").text_content() == "img-0050"
    page.keyboard.press("k")
    page.wait_for_function("() => document.getElementById('count').textContent.startsWith('1–')")
    assert page.locator("tr.current a").text_content() == "img-0049"
    page.evaluate("() => mark(-1)")
    for _ in range(2):
        page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_selector("#image h2")
    assert page.text_content("#image h2") == "img-0001"
    page.keyboard.press("j")
    page.wait_for_function("() => document.querySelector('#image h2').textContent === 'img-0002'")
    page.keyboard.press("k")
    page.wait_for_function("() => document.querySelector('#image h2').textContent === 'img-0001'")
    page.keyboard.press("Escape")
    page.wait_for_selector("tr.current")
    page.keyboard.press("/")
    page.keyboard.type("j0")
    assert page.input_value("[name=q]") == "j0"
    page.keyboard.press("Escape")
    assert page.evaluate("() => document.activeElement.tagName") == "BODY"


def test_an_id_of_any_characters_is_text_and_has_a_link(page, site):
    opened(page, site)
    link = page.locator("#rows a").first
    assert link.text_content() == NASTY
    link.click()
    page.wait_for_selector("#image h3")
    assert page.text_content("#image h2") == NASTY
    opened(page, site, "#/image/" + quote(NASTY, safe=""))
    page.reload()
    page.wait_for_selector("#image h3")
    assert page.text_content("#image h2") == NASTY
    assert page.locator("#image h2 img").count() == 0


def test_a_phone_scrolls_downwards_only_the_dark_is_dark_and_all_has_names(new_page, site):
    page = opened(new_page(390, 844, dark=True), site)
    wide = "() => document.documentElement.scrollWidth > innerWidth"
    assert not page.evaluate(wide)
    assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
    page.click("#rows tr:nth-child(2) a")
    page.wait_for_selector("#image h3")
    assert not page.evaluate(wide)
    unnamed = "e => !(e.getAttribute('aria-label') || e.alt || e.textContent.trim() || e.labels?.length)"
    assert not page.locator("img, svg, button, a, input, select, [role]").evaluate_all(f"all => all.some({unnamed})")
    page.evaluate("() => { location.hash = '#/image/nobody' }")
    page.wait_for_selector("#image .notice:has-text('This run has no image \"nobody\".')")


def test_screenshots(new_page, cli, screenshot, tmp_path, request):
    """Of the demo's run and of one of its images that an entry repaired."""
    if not request.config.getoption("--screenshots"):
        pytest.skip("writes pictures for the documents, of a demo of minutes: --screenshots docs/images")
    code, _, error = cli("demo", "--count", 40, "--quiet", "--out", tmp_path / "run")
    assert code == 0, error
    site = write_view(tmp_path / "run", tmp_path / "site").page
    for name, width, height, dark in (("view", 1000, 900, False), ("view-dark", 390, 760, True)):
        page = opened(new_page(width, height, dark), site)
        page.locator("#images").scroll_into_view_if_needed()
        page.select_option("[name=outcome]", "repaired")
        page.select_option("[name=entry]", "diffusion-tta")
        if not dark:
            page.evaluate("() => images.scrollIntoView()")
            screenshot(page, f"{name}-list")
        page.select_option("[name=shift]", "noise")
        page.locator("#rows a").first.click()
        page.wait_for_function("() => [...document.images].every(image => image.naturalWidth)")
        screenshot(page, f"{name}-image")
