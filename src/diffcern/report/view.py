"""A run folder as pages to look through, one link for every image: static files that open from a disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from diffcern import __version__
from diffcern.errors import DiffcernError
from diffcern.files import LOCK, check_folder, writing
from diffcern.report import coverage, wording
from diffcern.report.html import report_page
from diffcern.report.outcomes import choices, outcomes_of
from diffcern.report.records import load
from diffcern.report.summary import summarise_run
from diffcern.report.tables import build_grid
from diffcern.report.templates import template
from diffcern.report.view_data import write_data
from diffcern.report.view_pictures import write_pictures
from diffcern.watching import Report, unheard

MARK = ".diffcern-view"  # in a folder that a view may be written over
NEW = ".new"  # while it is written
PARTS = ("data", "pictures")
FILES = ("index.html", "report.html", "view.css", "view.js")


@dataclass(frozen=True)
class View:
    """page: to open. size: of all files, in bytes. sentences: what the page says of what is not there."""

    page: Path
    images: int
    records: int
    pictures: int
    size: int
    sentences: tuple[str, ...]


def write_view(run_dir: str | Path, out: str | Path, images: int | None = None, report: Report = unheard) -> View:
    """Write the pages of a run folder into `out`: over those of an earlier call, and over nothing else.

    images: of how many there are pictures (None: as many as make 1,000 pictures, which keeps them under 50 MB).
    The run folder is left as it is. Raises DiffcernError when it has no readable records, and for an `out` that holds
    something else.
    """
    folder = Path(out)
    check_folder(folder)
    _check_own(folder)
    run = load(run_dir)
    summary, outcomes = summarise_run(run), outcomes_of(run)
    page = report_page(run, summary)
    with writing(folder), _replacing(folder) as new:
        pictures = write_pictures(run, outcomes.ids, new / "pictures", images, report)
        write_data(run, outcomes, pictures, new / "data")
        first = template("view.html.j2").render(
            title=run.title,
            verdict=wording.verdict(summary),
            progress=wording.opening(coverage.progress(summary)),
            pictured=pictures.sentence,
            grid=build_grid(summary),
            images=wording.count(len(outcomes.ids), "image"),
            records=wording.count(outcomes.records, "record"),
            entries=[entry.name for entry in run.entries],
            shifts=list(dict.fromkeys(shift for shift, _ in run.conditions)),
            severities=sorted({severity for _, severity in run.conditions if severity}),
            choices=[name for name, _ in choices(run, outcomes.letters)],
            dense=run.kind.dense,
            version=__version__,
        )
        style, script = template("view.css").render(), Path(__file__).with_name("view.js").read_text()
        for name, text in zip(FILES, (first, page, style, script), strict=True):
            (new / name).write_text(text, "utf-8")
        files = [file for file in new.rglob("*") if file.is_file()]
        size = sum(file.stat().st_size for file in files)
    return View(
        page=folder / "index.html",
        images=len(outcomes.ids),
        records=outcomes.records,
        pictures=sum(file.parent.name == "pictures" for file in files),
        size=size,
        sentences=tuple(filter(None, (coverage.progress(summary), pictures.sentence))),
    )


def _check_own(folder: Path) -> None:
    """Raises DiffcernError for a folder that holds anything but a view, or what is left of one that was cut short."""
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if MARK not in there and not there <= {NEW, LOCK}:
        raise DiffcernError(f"{folder} holds something else than a view: give another --out, or empty it")


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """A folder to write a view into, which takes the place of an earlier one when it is whole; what else was put there
    stays."""
    new = folder / NEW
    shutil.rmtree(new, ignore_errors=True)
    try:
        for part in PARTS:
            (new / part).mkdir(parents=True)
        yield new
        (folder / MARK).write_text("`diffcern view` writes over what is here.\n")
        for name in (*PARTS, *FILES):
            if (folder / name).is_dir():
                shutil.rmtree(folder / name)
            (new / name).replace(folder / name)
    finally:
        shutil.rmtree(new, ignore_errors=True)
