"""`diffcern match`: images and captions in, Winoground's scores out."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from diffcern.cli.images import OverwriteOption, SideOption, collect, report_skipped
from diffcern.cli.options import DeviceOption, DtypeOption, JsonOption, PickleOption, SeedOption, StrictOption
from diffcern.errors import UsageError


def match(
    pairs: Annotated[str, typer.Argument(help="winoground:PATH, or pairs:FILE.parquet with columns image and caption")],
    prior: Annotated[str, typer.Option("--prior", help="a text-to-image prior: hf:OWNER/NAME or a folder")],
    out: Annotated[Path | None, typer.Option("--out", help="result file: .parquet or .json")] = None,
    draws: Annotated[int, typer.Option("--draws", help="per image and caption", min=1)] = 100,
    strategy: Annotated[str, typer.Option("--strategy", help="how times are drawn")] = "stratified",
    weighting: Annotated[str, typer.Option("--weighting", help="of the error over time")] = "eps",
    norm: Annotated[str, typer.Option("--norm", help="l2 or l1")] = "l2",
    rows: Annotated[int, typer.Option("--rows", help="network rows at a time; fewer need less memory", min=1)] = 64,
    max_side: SideOption = 4096,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    seed: SeedOption = 0,
    strict: StrictOption = False,
    overwrite: OverwriteOption = False,
    allow_pickle: PickleOption = False,
    as_json: JsonOption = False,
) -> None:
    """Match images with captions by how well each caption explains each image; text, image and group scores."""
    from diffcern.data.pairs import load_pairs
    from diffcern.devices import device_named
    from diffcern.draws import check_draws
    from diffcern.likelihood import check_norm
    from diffcern.priors import TextPrior
    from diffcern.run.journal import Journal, check_out
    from diffcern.run.match import match_rows
    from diffcern.run.models import load_models
    from diffcern.run.spec import parse_models
    from diffcern.weightings import weighting as weighting_named

    if out and out.suffix == ".csv":
        raise UsageError("a row holds lists of errors, for which CSV has no form: give --out FILE.parquet or .json")
    if out:
        check_out(out, overwrite)
    check_norm(norm)
    check_draws(strategy, draws, (0.0, 1.0))
    weighting_named(weighting)
    named = parse_models({"prior": prior, "dtype": dtype, "allow_pickle": allow_pickle})
    data = load_pairs(pairs, max_side=max_side)
    models = load_models(named, device_named(device))
    if not isinstance(models.prior, TextPrior):
        raise UsageError(f"{prior} does not read captions: matching needs a text-to-image prior")
    options: dict[str, Any] = {"draws": draws, "strategy": strategy, "weighting": weighting, "norm": norm, "seed": seed}
    chosen = {"pairs": pairs, "prior": prior, "dtype": dtype, "max_side": max_side, **options}
    chosen["fingerprints"] = models.fingerprints()
    journal = Journal(out, chosen, overwrite=overwrite) if out else None
    done = {row["id"] for row in journal.rows} if journal else set()
    written = collect(journal, match_rows(data, models.prior, **options, done=done, rows=rows), len(data), "matching")
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
        for name in SCORES:
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
