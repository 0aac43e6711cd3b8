"""`diffcern match`: images and captions in, Winoground's scores out."""

from __future__ import annotations

import json
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from diffcern.cli.images import OverwriteOption, SideOption
from diffcern.cli.options import (
    CompileOption,
    DeviceOption,
    DtypeOption,
    JsonOption,
    PickleOption,
    SeedOption,
    StrictOption,
    ViewOption,
    parse_view,
    refuse_given,
)
from diffcern.cli.rows import collect, report_skipped
from diffcern.errors import UsageError

OF_PRIORS = ("draws", "strategy", "weighting", "norm", "rows", "view", "dtype", "compile", "seed")  # not of predictors


def match(
    context: typer.Context,
    pairs: Annotated[
        str,
        typer.Argument(help="winoground:PATH, pairs:FILE.parquet with columns image and caption, or embedded:scenes"),
    ],
    prior: Annotated[str, typer.Option("--prior", help="a text-to-image prior: hf:OWNER/NAME or a folder")] = "",
    predictor: Annotated[
        str, typer.Option("--predictor", help="CLIP or SigLIP in its place: match by similarity, without draws")
    ] = "",
    out: Annotated[Path | None, typer.Option("--out", help="result file: .parquet or .json")] = None,
    draws: Annotated[int, typer.Option("--draws", help="per image and caption", min=1)] = 100,
    strategy: Annotated[str, typer.Option("--strategy", help="how times are drawn")] = "stratified",
    weighting: Annotated[str, typer.Option("--weighting", help="of the error over time")] = "eps",
    norm: Annotated[str, typer.Option("--norm", help="l2 or l1")] = "l2",
    rows: Annotated[int, typer.Option("--rows", help="network rows at a time; fewer need less memory", min=1)] = 64,
    view: ViewOption = "centre",
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
    """Match images with captions: text, image and group scores.

    By how well each caption explains each image to a prior, or by how similar a predictor finds the two.
    """
    from diffcern.data.pairs import load_pairs
    from diffcern.devices import device_named
    from diffcern.draws import check_draws
    from diffcern.fingerprints import fingerprint
    from diffcern.likelihood import check_norm
    from diffcern.priors import TextPrior
    from diffcern.run.journal import Journal, check_out
    from diffcern.run.match import contrastive_rows, load_contrastive, match_rows
    from diffcern.run.models import load_models
    from diffcern.run.spec import parse_models
    from diffcern.weightings import weighting as weighting_named

    if bool(prior) == bool(predictor):
        raise UsageError("give --prior (a text-to-image prior) or --predictor (CLIP or SigLIP), one of the two")
    if predictor:
        refuse_given(context, OF_PRIORS, "only with --prior; a predictor is asked once, in float32")
    if out and out.suffix == ".csv":
        raise UsageError("a row holds lists of errors, for which CSV has no form: give --out FILE.parquet or .json")
    if out:
        check_out(out, overwrite)
    check_norm(norm)
    check_draws(strategy, draws, (0.0, 1.0))
    weighting_named(weighting)
    asked = {"prior": prior, "dtype": dtype, "compile": compile}
    named = parse_models({**asked, "allow_pickle": allow_pickle}) if prior else None
    data = load_pairs(pairs, max_side=max_side)
    chosen: dict[str, Any] = {"pairs": pairs, "max_side": max_side}
    if named is None:
        reader = load_contrastive(predictor, data, allow_pickle=allow_pickle).to(device_named(device))
        fingerprints = {"predictor": fingerprint(reader), "captions": fingerprint(reader.model)}
        chosen |= {"predictor": predictor, "fingerprints": fingerprints}
        matched = partial(contrastive_rows, data, reader)
    else:
        models = load_models(named, device_named(device))
        if not isinstance(models.prior, TextPrior):
            raise UsageError(f"{prior} does not read captions: matching needs a text-to-image prior")
        options: dict[str, Any] = {"draws": draws, "strategy": strategy, "weighting": weighting, "norm": norm}
        options |= {"view": parse_view(view), "seed": seed}
        chosen |= {**asked, **options, "fingerprints": models.fingerprints()}
        matched = partial(match_rows, data, models.prior, **options, rows=rows)
    journal = Journal(out, chosen, overwrite=overwrite) if out else None
    done = {row["id"] for row in journal.rows} if journal else set()
    written = collect(journal, matched(done=done), len(data), "matching")
    good = [row for row in written if not row["error"]]
    summary = scores(good)
    if as_json:
        typer.echo(json.dumps({"scores": summary, "rows": written}, indent=1))
    elif good:
        Console().print(_table(summary, len(good)))
    report_skipped(journal, written, strict)


def scores(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each score over all examples and over those of each tag, with Wilson's 95 % interval and N."""
    from diffcern.data.pairs import TAGS
    from diffcern.report.summary import wilson
    from diffcern.tasks.matching import SCORES

    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        for group in dict.fromkeys(["all", *(f"{tag}: {row[tag]}" for tag in TAGS if row.get(tag))]):
            groups[group].append(row)
    table = []
    for group, members in groups.items():
        for name in (score for score in SCORES if score in members[0]):  # some need an unconditional error
            right = sum(row[name] for row in members)
            low, high = wilson(right, len(members))
            value = right / len(members)
            table.append(
                {"group": group, "score": name, "value": value, "ci_low": low, "ci_high": high, "n": len(members)}
            )
    return table


def _table(summary: list[dict[str, Any]], count: int) -> Table:
    titles = ("", "score", "% right", "95 % interval", "N")
    table = Table(*titles, caption=f"{count} examples", box=None, header_style="bold")
    for row in summary:
        interval = f"[{100 * row['ci_low']:.1f}, {100 * row['ci_high']:.1f}]"
        table.add_row(*map(Text, (row["group"], row["score"], f"{100 * row['value']:.1f}", interval, str(row["n"]))))
    return table
