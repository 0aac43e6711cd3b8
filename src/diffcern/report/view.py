"""A run folder as pages to look through, one link for every image: static files that open from a disk."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from diffcern import __version__
from diffcern.errors import DiffcernError
from diffcern.files import check_folder, write_whole, writing
from diffcern.report import coverage, wording
from diffcern.report.html import report_page
from diffcern.report.outcomes import choices, outcomes_of
from diffcern.report.records import load
from diffcern.report.summary import summarise_run
from diffcern.report.tables import build_grid
from diffcern.report.view_data import write_data
from diffcern.report.view_pictures import write_pictures
from diffcern.watching import Report, unheard

MARK = ".diffcern-view"  # in a folder that a view may be written over
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
    with writing(folder):
        _clear(folder)
        for part in PARTS:
            (folder / part).mkdir()
        pictures = write_pictures(run, outcomes.ids, folder / "pictures", images, report)
        write_data(run, outcomes, pictures, folder / "data")
        sentences = tuple(filter(None, (coverage.progress(summary), pictures.sentence)))
        environment = Environment(
            loader=PackageLoader("diffcern.report", "."),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        write_whole(folder / "view.css", environment.get_template("view.css").render().encode())
        write_whole(folder / "view.js", Path(__file__).with_name("view.js").read_bytes())
        write_whole(folder / "report.html", page.encode())
        first = environment.get_template("view.html.j2").render(
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
        write_whole(folder / "index.html", first.encode())  # last: a page that opens is whole
        files = [file for file in folder.rglob("*") if file.is_file() and _is_own(file.relative_to(folder))]
    return View(
        page=folder / "index.html",
        images=len(outcomes.ids),
        records=outcomes.records,
        pictures=sum(file.parent.name == "pictures" for file in files),
        size=sum(file.stat().st_size for file in files),
        sentences=sentences,
    )


def _is_own(path: Path) -> bool:
    return path.parts[0] in (*PARTS, *FILES)


def _check_own(folder: Path) -> None:
    """Raises DiffcernError for a folder that holds anything but a view."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).is_file():
        raise DiffcernError(f"{folder} holds something else than a view: give another --out, or empty it")


def _clear(folder: Path) -> None:
    """Makes the folder a view's own, and takes an earlier one away: what else was put there stays."""
    (folder / MARK).write_text("`diffcern view` writes over what is here.\n")
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
    for part in PARTS:
        if (folder / part).is_dir():
            shutil.rmtree(folder / part)
