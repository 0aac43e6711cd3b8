"""The page at the widths of a laptop, a screen and a phone, in a real browser; skipped where there is none."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from diffcern.report import write_report

from .conftest import ENTRIES, Build

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MEASURE = """<script>
const cut = [...document.querySelectorAll(".scroll")].filter(e => e.scrollWidth > e.clientWidth + 1);
const names = cut.map(e => e.getAttribute("aria-label"));
const wide = document.documentElement.scrollWidth > window.innerWidth;
const lost = [...document.querySelectorAll("tbody th")].filter(e => e.scrollWidth > e.clientWidth + 1).length;
document.title = JSON.stringify({cut: names, wide, lost});
</script></body>"""


def measured(path, width, tmp_path):
    copy = tmp_path / f"{width}.html"
    copy.write_text(path.read_text().replace("Content-Security-Policy", "none").replace("</body>", MEASURE))
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'browser'}"]
    command = [BROWSER, *options, f"--window-size={width},2000", "--dump-dom", copy.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    return re.search(r"<title>(.*?)</title>", dom, re.S)[1]


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium: apt-get install chromium")
@pytest.mark.parametrize("width", [1280, 1920, 500])  # a window is no narrower than 500
def test_nothing_is_cut(build: Build, tmp_path, width) -> None:
    names = [
        "source",
        "tent-single",
        "tent",
        *(f"diffusion-{end}" for end in ("tta", "tta-gate", "tta-bn", "classifier")),
    ]
    entries = [{**ENTRIES[0], "entry": name} for name in names]
    folder = build(entries=entries, shifts=("jpeg_compression", "elastic_transform", "fog"), n=6)
    found = measured(write_report(folder), width, tmp_path)
    assert '"wide":false' in found
    assert '"lost":0' in found
    if width >= 1280:
        assert '"cut":[]' in found
