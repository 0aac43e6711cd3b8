"""`diffcern app`: the page in a browser."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import Annotated

import typer

from diffcern.cli.completing import NAMES, completing
from diffcern.cli.consoles import remarks, waiting
from diffcern.cli.options import HERE
from diffcern.errors import DiffcernError, UsageError
from diffcern.given import parse_labels
from diffcern.kinds import KINDS

LOCAL = ("127.0.0.1", "localhost")
EVERYWHERE = "0.0.0.0"


def named(help: str, name: str) -> typer.models.OptionInfo:
    """An option whose names a shell completes."""
    option: typer.models.OptionInfo = typer.Option(help=help, autocompletion=completing(NAMES[name]))
    return option


def app(
    predictor: Annotated[str | None, named("a model of yours, beside --prior and --images", "predictor")] = None,
    prior: Annotated[str | None, named("its prior: hf:OWNER/NAME or a folder", "prior")] = None,
    images: Annotated[str | None, named("pictures to choose from: a folder or a data set", "images")] = None,
    task: Annotated[str, named("classification, segmentation or depth", "task")] = "classification",
    labels: Annotated[
        str, typer.Option(help="what models of yours that read text tell apart: cat,dog or a file of a line each")
    ] = "",
    runs: Annotated[Path | None, typer.Option(help="whose run folders can be opened (default: runs)", **HERE)] = None,
    host: Annotated[str, typer.Option(help="of this machine alone, unless you give another one")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8765,
    device: Annotated[str, named("auto, cpu, cuda or mps", "device")] = "auto",
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="open it in a browser")] = True,
) -> None:
    """Open a page to try methods on a picture, to see why they answer so, and to look through runs."""
    if task not in KINDS:
        raise UsageError(f"--task is one of {', '.join(KINDS)}, not {task!r}")
    if runs and not runs.is_dir():
        raise UsageError(f"--runs {runs} is no folder: give the one that your run folders are in")
    runs = runs or Path("runs")
    told = parse_labels(labels) or []
    if isinstance(told, dict):
        raise UsageError("--labels on the page are names alone, as cat,dog: sentences of one's own are for classify")
    check_free(host, port)
    with waiting():
        from diffcern.optional import needs

        needs("nicegui")
        from diffcern.app.serve import serve
        from diffcern.app.worlds import of_models

        worlds = of_models(predictor, prior, images, task, device, told)
    console = remarks()
    console.print(f"http://{LOCAL[0] if host == EVERYWHERE else host}:{port} (Ctrl-C ends it)")
    if host not in LOCAL:
        console.print(f"whoever reaches {host} can use this page and look at the runs in {runs}")
    with contextlib.suppress(KeyboardInterrupt):  # which is how it ends
        serve(worlds, runs if runs.is_dir() else None, host, port, show=browser)


def check_free(host: str, port: int) -> None:
    """Raises DiffcernError for an address that is taken, or that is none of this machine's."""
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        raise DiffcernError(
            f"cannot serve on {host}:{port}: {error.strerror}; give another --port or --host"
        ) from error
