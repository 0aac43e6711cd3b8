"""What does a view of many records cost, and how soon does its page answer in Chromium?

    python benchmarks/view.py --images 4000 --shifts 4 --entries 5

Makes a run folder of random answers (of no data set, so without pictures) and its view in a temporary folder. Needs
Playwright and a Chromium for the seconds of the page.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from diffcern.data.corruptions import COMMON
from diffcern.report import write_report, write_view

CLASSES, STEPS = 10, 8


def make_run(path: Path, images: int, shifts: int, entries: int) -> None:
    """A run folder as `diffcern bench` leaves it, of random answers."""
    rng = np.random.default_rng(0)
    names = ["source", *(f"method-{e}" for e in range(1, entries))]
    ids = [f"val/n{i % 1000:08d}/ILSVRC2012_val_{i:08d}.JPEG" for i in range(images)]
    target = rng.integers(0, CLASSES, images)
    for kind in ("records", "timings"):
        (path / kind).mkdir(parents=True)
    for entry in names:
        for shift in ("clean", *COMMON[:shifts]):
            severity = 5 * (shift != "clean")
            key = {"entry": [entry] * images, "shift": [shift] * images, "severity": [severity] * images, "id": ids}
            chances = rng.dirichlet(np.full(CLASSES, 0.3), images)
            answers = {
                "method": [entry] * images,
                "dataset": ["random"] * images,
                "index": np.arange(images),
                "target": target,
                "prediction": chances.argmax(1),
                "probabilities": list(chances),
                "nfe_forward": np.full(images, 48),
                "nfe_backward": np.full(images, 16),
                "loss_trace": list(rng.normal(size=(images, STEPS))),
                "notes": ['{"margin": 0.0961, "margin_standard_error": 0.033}'] * images,
            }
            spent = {"seconds": rng.uniform(0.1, 1, images), "peak_memory_mb": np.full(images, 512.0)}
            pq.write_table(pa.table(key | answers), path / "records" / f"{entry}--{shift}.parquet")
            pq.write_table(pa.table(key | spent), path / "timings" / f"{entry}--{shift}.parquet")
    (path / "classes.json").write_text(json.dumps([f"class {k}" for k in range(CLASSES)]))


def measured(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def seconds_of_page(page_file: Path) -> dict[str, float]:
    """What someone waits for who opens the page, filters it and opens an image of it."""
    from playwright.sync_api import sync_playwright

    found = {}
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()

        def until(text: str) -> None:
            page.wait_for_function(f"() => {text}", polling=5)

        def first() -> None:
            page.goto(page_file.as_uri(), wait_until="commit")
            until("document.querySelector('#rows tr')")

        found["first rows"] = measured(first)
        found["all images known"] = found["first rows"] + measured(
            lambda: until("!document.getElementById('count').textContent.includes('reading')")
        )

        def filtered() -> None:
            before = page.text_content("#count")
            page.select_option("[name=outcome]", "wrong")
            page.select_option("[name=entry]", "source")
            page.select_option("[name=shift]", "clean")
            until(f"document.getElementById('count').textContent !== {json.dumps(before)}")

        def opened() -> None:
            page.click("#rows a")
            until("document.querySelector('#image h3')")

        found["filtered"], found["an image opened"] = measured(filtered), measured(opened)
        browser.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("images", 4000), ("shifts", 4), ("entries", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run, out = Path(folder) / "run", Path(folder) / "site"
        make_run(run, options.images, options.shifts, options.entries)
        report = measured(lambda: write_report(run))
        start = time.perf_counter()
        made = write_view(run, out)
        seconds = time.perf_counter() - start
        files = [file for file in out.rglob("*") if file.is_file()]
        largest = max(files, key=lambda file: file.stat().st_size)
        print(f"{made.images:,} images, {made.records:,} records")
        print(f"view written: {seconds:.1f} s, of which a report takes {report:.1f} s")
        print(
            f"size: {made.size / 1e6:.1f} MB in {len(files):,} files, the largest {largest.relative_to(out)} with ",
            end="",
        )
        print(f"{largest.stat().st_size / 1e6:.2f} MB")
        for what, taken in seconds_of_page(made.page).items():
            print(f"{what}: {taken:.2f} s")


if __name__ == "__main__":
    main()
