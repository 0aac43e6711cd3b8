"""`diffcern answer`: images and questions in, accuracies by kind of question out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from diffcern.cli.images import OverwriteOption, PresetOption, SetOption, SideOption
from diffcern.cli.options import (
    CompileOption,
    DeviceOption,
    DtypeOption,
    JsonOption,
    PickleOption,
    SeedOption,
    StrictOption,
    parse_set,
    refuse_given,
)
from diffcern.cli.rows import collect, report_skipped
from diffcern.errors import UsageError

OF_PRIORS = ("method", "preset", "settings", "dtype", "compile")  # of the purification


def answer(
    context: typer.Context,
    questions: Annotated[
        str,
        typer.Argument(help="embedded:scenes, or questions:FILE.parquet with columns image, question, answer, choices"),
    ],
    predictor: Annotated[str, typer.Option("--predictor", help="a LLaVA: hf:OWNER/NAME or a folder")],
    prior: Annotated[str, typer.Option("--prior", help="purify the images with it: hf:OWNER/NAME or a folder")] = "",
    method: Annotated[str, typer.Option("--method", help="the purification: diffpure, dda or sda")] = "dda",
    preset: PresetOption = "small",
    settings: SetOption = None,
    shift: Annotated[str, typer.Option("--shift", help="corrupt the images first, see `diffcern list`")] = "clean",
    severity: Annotated[int, typer.Option("--severity", help="of the shift, 1 to 5", min=0, max=5)] = 0,
    out: Annotated[Path | None, typer.Option("--out", help="result file: .parquet or .json")] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", help="questions at a time", min=1)] = 16,
    max_side: SideOption = 4096,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    compile: CompileOption = False,
    seed: SeedOption = 0,
    strict: StrictOption = False,
    overwrite: OverwriteOption = False,
    allow_pickle: PickleOption = False,
    as_json: JsonOption = False,
) -> None:
    """Answer questions about images by choices, before and after purifying them, and with both answers together."""
    from diffcern.data import load_questions
    from diffcern.devices import device_named
    from diffcern.fingerprints import fingerprint
    from diffcern.methods.presets import QUESTIONS, preset_options
    from diffcern.predictors.question_answering import load_answerer
    from diffcern.run.answer import METHODS, answer_rows, check_shift, purification
    from diffcern.run.journal import Journal, check_out
    from diffcern.run.models import load_models
    from diffcern.run.spec import parse_models
    from diffcern.tasks.question_answering import accuracies

    if out and out.suffix == ".csv":
        raise UsageError(
            "a row holds lists of probabilities, for which CSV has no form: give --out FILE.parquet or .json"
        )
    if out:
        check_out(out, overwrite)
    if method not in METHODS:
        raise UsageError(f"--method is one of {', '.join(METHODS)}, not {method!r}")
    if not prior:
        refuse_given(context, OF_PRIORS, "only where the images are purified; give --prior too")
    check_shift(shift, severity)
    options = {**preset_options(method, preset, QUESTIONS), **parse_set(settings or [])}
    place = device_named(device)
    data = load_questions(questions, max_side=max_side)
    answerer = load_answerer(predictor, allow_pickle=allow_pickle).to(place)
    chosen: dict[str, Any] = {"questions": questions, "max_side": max_side, "shift": shift, "severity": severity}
    chosen |= {"predictor": predictor, "seed": seed, "fingerprints": {"predictor": fingerprint(answerer)}}
    cleaning = None
    if prior:
        asked = {"prior": prior, "dtype": dtype, "compile": compile, "allow_pickle": allow_pickle}
        model = load_models(parse_models(asked), place).prior
        assert model is not None  # it was named
        cleaning = purification(method, options, answerer, model)
        chosen |= {**asked, "method": method, "options": options}
        chosen["fingerprints"] |= {"prior": fingerprint(model), "after": fingerprint(cleaning.answerer)}
    journal = Journal(out, chosen, overwrite=overwrite) if out else None
    how: dict[str, Any] = {"shift": shift, "severity": severity, "seed": seed, "batch_size": batch_size}
    how["done"] = {row["id"] for row in journal.rows} if journal else set()
    written = collect(journal, answer_rows(data, answerer, cleaning, **how), len(data), "answering")
    good = [row for row in written if not row["error"]]
    summary = accuracies(good) if good else []
    if as_json:
        typer.echo(json.dumps({"accuracies": summary, "rows": written}, indent=1))
    elif good:
        Console().print(_table(summary, len(good)))
    report_skipped(journal, written, strict)


def _table(summary: list[dict[str, Any]], count: int) -> Table:
    titles = ("", "answer", "% right", "95 % interval", "N")
    table = Table(*titles, caption=f"{count} questions", box=None, header_style="bold")
    for row in summary:
        interval = f"[{100 * row['ci_low']:.1f}, {100 * row['ci_high']:.1f}]"
        table.add_row(*map(Text, (row["group"], row["answer"], f"{100 * row['value']:.1f}", interval, str(row["n"]))))
    return table
