"""`diffcern demo`: each task on data and models that ship with the package."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from diffcern.cli.bars import Bars
from diffcern.cli.bench import show_run
from diffcern.cli.completing import completing
from diffcern.cli.consoles import print_json, results, waiting
from diffcern.cli.options import HERE, JsonOption
from diffcern.cli.tables import report_skipped
from diffcern.errors import DiffcernError, UsageError, unknown
from diffcern.files import check_folder, write_whole
from diffcern.jobs.base import Row, keeping
from diffcern.jobs.bench import Bench
from diffcern.jobs.rows import Table as Rows
from diffcern.jobs.rows import Work, collect
from diffcern.jobs.sinks import sink_for

Summary = dict[str, list[Row]]  # what the columns of a table are made of, by their title
COUNTS = {"classification": 40, "segmentation": 14, "depth": 14, "matching": 80, "qa": 120}  # what two minutes allow
SPECS = {"classification": "digits", "segmentation": "scenes-segmentation", "depth": "scenes-depth"}
SEED = 0
MATCHING: dict[str, Any] = {"draws": 32, "strategy": "stratified", "weighting": "x0", "norm": "l2", "seed": SEED}
PURIFICATION = "dda"
SHIFT, SEVERITY = "gaussian_noise", 5  # of the images that questions are asked about


def demo(
    task: Annotated[
        str,
        typer.Option(
            "--task",
            help="classification, segmentation, depth, matching or qa",
            autocompletion=completing(lambda: tuple(COUNTS)),
        ),
    ] = "classification",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="run folder (default: demo-run, demo-run-TASK); the same command again continues it", **HERE
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(help="images per shift, pairs or questions (default: what takes under two minutes)", min=1),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="processes of one thread each; not for matching and qa", min=1)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Embedded data and models, no download: a table in under two minutes.

    Classification, segmentation and depth write report.html, matching and qa their rows, one Parquet file each.
    """
    if task not in COUNTS:
        raise unknown("task of the demo", task, COUNTS)
    folder = out or Path("demo-run" if task == "classification" else f"demo-run-{task}")
    count = count or COUNTS[task]
    if task in SPECS:
        processes = workers or min(4, os.cpu_count() or 1)
        overrides = (f"data.count={count}", *_dtype())
        job = Bench(spec=SPECS[task], overrides=overrides, workers=processes, device="cpu")
        with waiting():
            show_run(job, folder, as_json)
        return
    check_folder(folder)
    if workers is not None:
        raise UsageError(f"--workers is for {', '.join(SPECS)}; {task} is one process: leave it out")
    kept = f"what is in {folder} is kept: run the same command to continue"
    with waiting(), keeping(lambda: kept):  # while models are loaded: `collect` has its own
        summary, table = (matching if task == "matching" else question_answering)(folder, count)
    if as_json:
        print_json(summary)
    else:
        results().print(table)


def _dtype() -> tuple[str, ...]:
    """bfloat16, as in the specifications, only where the processor knows it: elsewhere it takes four times as long."""
    import torch

    from diffcern.devices import multiplies_bfloat16

    return () if multiplies_bfloat16(torch.device("cpu")) else ("models.dtype=float32",)


def matching(folder: Path, count: int) -> tuple[Summary, Table]:
    """Scores of a text-to-image prior by its errors, and of CLIP by its similarities, on the same pairs.

    Writes generative.parquet and contrastive.parquet. Raises UsageError for more pairs than there are.
    """
    from diffcern.data.scenes.matching import pairs
    from diffcern.fingerprints import fingerprint
    from diffcern.priors import TextPrior, load_prior
    from diffcern.run.match import contrastive_rows, load_contrastive, match_rows
    from diffcern.tasks.matching import scores

    data, prior = pairs("test", count), load_prior("embedded:scenes-text")
    clip = load_contrastive("embedded:scenes-clip", data)
    assert isinstance(prior, TextPrior)  # it is shipped as one
    models = {"prior": fingerprint(prior), "predictor": fingerprint(clip), "captions": fingerprint(clip.model)}
    settings = {"task": "matching", "count": count, **MATCHING, "fingerprints": models}
    _claim(folder, settings)
    makers = {
        "generative": partial(match_rows, data, prior, **MATCHING),
        "contrastive": partial(contrastive_rows, data, clip),
    }
    files = {name: folder / f"{name}.parquet" for name in makers}
    summary = {name: scores(_rows(files[name], settings, make, data.ids)) for name, make in makers.items()}
    return summary, _table(f"matching {count} examples of embedded:scenes, % right", "score", summary)


def question_answering(folder: Path, count: int) -> tuple[Summary, Table]:
    """Accuracies of a LLaVA on clean images, and on shifted ones before and after DDA.

    Writes clean.parquet and one file named after the shift. Raises UsageError for more questions than there are.
    """
    from diffcern.data.scenes.asking import questions
    from diffcern.fingerprints import fingerprint
    from diffcern.kinds import QUESTION_ANSWERING
    from diffcern.methods.presets import preset_options
    from diffcern.predictors.question_answering import load_answerer
    from diffcern.priors import load_prior
    from diffcern.run.answer import answer_rows, purification
    from diffcern.tasks.question_answering import accuracies

    data, answerer = questions("test", count), load_answerer("embedded:scenes-answerer")
    prior, options = load_prior("embedded:scenes-text"), preset_options(PURIFICATION, "small", QUESTION_ANSWERING)
    models = {"predictor": fingerprint(answerer), "prior": fingerprint(prior)}
    settings = {"task": "qa", "count": count, "shift": SHIFT, "severity": SEVERITY, "seed": SEED}
    settings |= {"method": PURIFICATION, "options": options, "fingerprints": models}
    _claim(folder, settings)
    cleaning = purification(PURIFICATION, options, answerer, prior)
    makers = {
        "clean": partial(answer_rows, data, answerer, None, shift="clean", severity=0),
        SHIFT: partial(answer_rows, data, answerer, cleaning, shift=SHIFT, severity=SEVERITY),
    }
    summary = {}
    for name, make in makers.items():
        make = partial(make, seed=SEED, batch_size=16)
        summary[name] = accuracies(_rows(folder / f"{name}.parquet", settings, make, data.ids))
    shifted = f"{SHIFT} {SEVERITY} before and after {PURIFICATION}"
    return summary, _table(f"{count} questions about embedded:scenes, % right; {shifted}", "answer", summary)


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    """Notes in demo.json what the rows of a folder depend on. Raises DiffcernError for one that holds anything else."""
    known, text = folder / "demo.json", (json.dumps(settings, indent=1) + "\n").encode()
    if known.is_file() and known.read_bytes() == text:
        return
    if folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise DiffcernError(
            f"{folder} holds other things, or a demo of another task, --count or version: give another --out, or "
            "delete the folder to start afresh"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(known, text)


def _rows(out: Path, settings: dict[str, Any], make: Callable[..., Iterator[Row]], ids: Sequence[str]) -> list[Row]:
    """The rows of a result file by id, without those that were skipped: as they are there, or made (or continued) now.

    make: takes todo, the places of ids.
    """
    from diffcern.run.journal import read_rows

    if out.is_file():
        found = Rows(read_rows(out))
    else:
        work = Work(out.stem, settings, ids, lambda todo: make(todo=todo))
        found = Rows(collect(work, sink_for(work, out, False), Bars()), out=out)
    report_skipped(found, strict=False)
    return sorted(found.good, key=lambda row: row["id"])


def _table(title: str, kind: str, summary: Summary) -> Table:
    """Summaries side by side; kind: the key of a row that tells it from the others of its group."""
    table = Table("", kind, *summary, "N", title=title, title_justify="left", box=None, header_style="bold")
    columns = [{(row["group"], row[kind]): row for row in rows} for rows in summary.values()]
    keys = dict.fromkeys(key for column in columns for key in column)
    groups = list(dict.fromkeys(group for group, _ in keys))
    for key in sorted(keys, key=lambda key: groups.index(key[0])):
        rows = [column.get(key) for column in columns]
        counts = dict.fromkeys(str(row["n"]) for row in rows if row)
        table.add_row(*map(Text, (*key, *map(_cell, rows), "/".join(counts))))
    return table


def _cell(row: Row | None) -> str:
    """`61.2 [57.0, 65.3]`, a change with its sign."""
    from diffcern.report.wording import interval, percent, points
    from diffcern.tasks.question_answering import CHANGE

    if row is None:
        return "–"
    signed = row.get("answer") == CHANGE
    return f"{(points if signed else percent)(row['value'])} {interval(row['ci_low'], row['ci_high'], signed)}"
