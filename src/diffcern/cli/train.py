"""`diffcern train`: a command for each kind of model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffcern.cli.bars import Bars, training_bar
from diffcern.cli.consoles import remarks, results
from diffcern.cli.derive import from_job
from diffcern.cli.groups import Group
from diffcern.cli.options import HERE
from diffcern.jobs.train import TrainAnswerer, TrainClip, Training, TrainMae, TrainPredictor, TrainPrior, TrainTextPrior

TRAININGS: tuple[type[Training], ...] = (
    TrainPrior,
    TrainPredictor,
    TrainMae,
    TrainTextPrior,
    TrainClip,
    TrainAnswerer,
)
app = typer.Typer(help="Train a prior or a predictor.", no_args_is_help=True, cls=Group)


def training(
    job: Training, out: Annotated[Path, typer.Option("--out", help="folder for the weights and the checkpoint", **HERE)]
) -> None:
    """Says how far training came; exit code 130 where Ctrl-C ended it (the time limit is a planned stop)."""
    trained = job.carry_out(out, events=Bars(training_bar))
    outcome = trained.outcome
    size = sum(p.numel() for p in trained.model.parameters()) / 1e6
    stopped = "interrupted" if outcome.interrupted else "stopped"
    state = "finished" if outcome.finished else f"{stopped}; run the same command to go on"
    steps = f"step {outcome.step} of {trained.regime.steps}"
    results().print(f"{state}: {size:.2f} M parameters, {steps}, loss {outcome.loss:.4f}", soft_wrap=True)
    if outcome.pace:
        remarks().print(str(outcome.pace), soft_wrap=True)
    results().print(f"in {out}" + (f" ({trained.use})" if outcome.finished else ""), soft_wrap=True)
    if outcome.interrupted:
        raise typer.Exit(130)


for kind in TRAININGS:
    app.command(kind.command.removeprefix("train "), help=kind.__doc__)(from_job(kind)(training))
