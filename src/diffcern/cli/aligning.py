"""What `diffcern align` and `diffcern align-answerer` share: options, checks, and how progress is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from diffcern.cli.options import finite
from diffcern.cli.progress import counted
from diffcern.errors import UsageError

if TYPE_CHECKING:
    from diffcern.priors import Prior

OutOption = Annotated[Path, typer.Option("--out", "-o", help="folder; the same command again continues it")]
StepsOption = Annotated[int, typer.Option("--generator-steps", help="from noise to an image", min=1)]
SolverOption = Annotated[str, typer.Option("--generator-solver", help="ddpm, ddim, dpm-solver++, ...")]
GuidanceOption = Annotated[float, typer.Option("--guidance-scale", help="classifier-free; 1 is none", callback=finite)]
SkipOption = Annotated[
    bool, typer.Option("--skip-resynthesis", help="fine-tune on images that are not purified (an ablation)")
]
EpochsOption = Annotated[int | None, typer.Option("--epochs", help="of fine-tuning", min=1)]
RateOption = Annotated[float | None, typer.Option("--learning-rate", help="of fine-tuning", min=0.0, callback=finite)]
BatchOption = Annotated[int, typer.Option("--batch-size", help="images generated or purified at a time", min=1)]


def purification_options(
    method: str, preset: str, given: Mapping[str, Any], answering: str, task: str = "classification"
) -> dict[str, Any]:
    """All options of a purification, but for those that concern its answers; answering: the command that takes these.

    Raises UsageError for unknown ones and for those that concern answers.
    """
    from diffcern.methods import checked_options, options_of
    from diffcern.methods.presets import preset_options
    from diffcern.methods.purification import ANSWERING, PURIFIERS

    if ANSWERING & given.keys():
        names = ", ".join(sorted(ANSWERING & given.keys()))
        raise UsageError(f"{names}: options of {answering}, not of the purification")
    checked = checked_options(method, {**preset_options(method, preset, task), **given})
    return options_of(PURIFIERS[method])(**checked).model_dump(exclude=set(ANSWERING))


def sampling_settings(generator: Prior, steps: int, solver: str, guidance_scale: float) -> dict[str, Any]:
    """Of `purify.sample`. Raises UsageError where they do not fit the generator."""
    from diffcern.purifier import Route

    Route(generator.num_timesteps - 1, steps, solver).evaluations(generator)
    return {"steps": steps, "solver": solver, "guidance_scale": guidance_scale}


@contextmanager
def bars(console: Console) -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar for each stage, that is for each first word of what is reported."""
    columns = [TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    columns.append(TextColumn("{task.fields[text]}", style="dim"))
    with Progress(*columns, console=console, transient=True) as progress, counted(progress):
        shown: dict[str, TaskID] = {}

        def report(done: int, total: int, what: str) -> None:
            stage = what.partition(",")[0]
            if stage not in shown:
                shown[stage] = progress.add_task(what, text="")
            progress.update(shown[stage], completed=done, total=total, description=what)

        yield report
