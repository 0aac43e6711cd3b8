"""`diffcern calibrate images` and `run`: temperatures of probabilities; `views`: margins of canonical views."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from diffcern.cli.bars import Bars
from diffcern.cli.consoles import print_json, results, waiting
from diffcern.cli.derive import from_job
from diffcern.cli.groups import Group
from diffcern.cli.options import JsonOption, OutFile, OutLists, OverwriteOption, StrictOption
from diffcern.cli.tables import report_skipped
from diffcern.jobs.calibrate import KEEP, Calibrate, of_run
from diffcern.jobs.calibrate_views import CalibrateViews

app = typer.Typer(
    no_args_is_help=True,
    cls=Group,
    help="Fit what a prior's answers are read by: temperatures of probabilities, margins of views.",
)


@app.command("images")
@from_job(Calibrate)
def images(
    job: Calibrate,
    out: OutLists = None,
    strict: StrictOption = False,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    table = job.carry_out(out, overwrite=overwrite, events=Bars())
    for score in table.scores:
        _present(score, as_json)
    report_skipped(table, strict)


@app.command("views")
@from_job(CalibrateViews)
def views(
    job: CalibrateViews,
    out: OutFile = None,
    strict: StrictOption = False,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    table = job.carry_out(out, overwrite=overwrite, events=Bars())
    if as_json:
        print_json(table.scores)
    else:
        _present_margins(table.scores)
        if job.keep:
            results().print(
                f"canonical goes by them with --set gains={job.keep}, or where they are the prior's own", soft_wrap=True
            )
    report_skipped(table, strict)


@app.command("run")
def run(
    run_dir: Annotated[Path, typer.Argument(help="a folder that `diffcern bench` wrote, of held-out images")],
    entry: Annotated[str | None, typer.Option(help="whose answers")] = None,
    shift: Annotated[str, typer.Option(help="of images under that shift, or all")] = "all",
    per_class: Annotated[bool, typer.Option("--per-class", help="a number for each class besides")] = False,
    keep: Annotated[str | None, typer.Option(help=KEEP)] = None,
    as_json: JsonOption = False,
) -> None:
    """Fit a temperature on the answers of a bench's entry; classify and adapt use it from then on."""
    with waiting():
        _present(of_run(run_dir, entry, shift, per_class, keep), as_json)


def _present_margins(scores: Sequence[dict[str, Any]]) -> None:
    say = partial(results().print, soft_wrap=True)
    for score in scores:
        least = f"a view is answered on from {score['margin']:.1f} nats"
        most = f"the most that one of {score['images']} clean images gains is {score['most']:.1f}"
        say(f"{score['views']:>8}: {least}; {most}")
    for path in {score["kept"] for score in scores}:
        say(f"kept in {path}")


def _present(score: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(score)
        return
    say = partial(results().print, soft_wrap=True)
    right = f"{100 * score['accuracy']:.1f} % right"
    say(f"temperature {score['temperature']:.4g}, fitted on {score['images']} images ({right})")
    for name in ("before", "after"):
        low, high = (100 * end for end in score[f"interval_{name}"])
        error, risk = (100 * score[f"{what}_{name}"] for what in ("calibration_error", "risk_of_the_surer_half"))
        said = f"calibration error {error:.1f} points [{low:.1f}, {high:.1f}]"
        say(f"{name:>7}: {said}; wrong of the surer half {risk:.1f} %")
    say("after: of images that the temperature was not fitted on (five folds)")
    say(f"kept in {score['kept']}")
