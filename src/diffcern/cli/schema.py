"""`diffcern schema`: what a command takes, and what it prints with --json, for programs."""

from __future__ import annotations

from typing import Annotated

import typer

from diffcern.cli.completing import completing
from diffcern.cli.consoles import print_json, waiting
from diffcern.errors import unknown


def _names() -> list[str]:
    from diffcern import jobs, outputs

    return sorted({*outputs.OUTPUTS, *jobs.JOBS})


def schema(
    command: Annotated[
        list[str],
        typer.Argument(help="of what: adapt, calibrate images, summary.json, ...", autocompletion=completing(_names)),
    ],
    fields: Annotated[bool, typer.Option("--fields", help="what the command takes, not what it prints")] = False,
) -> None:
    """The JSON schema of what a command prints with --json, or of its fields."""
    with waiting():
        from diffcern import jobs
        from diffcern.outputs import schema_of

        name = " ".join(command)
        if not fields:
            print_json(schema_of(name))
        elif name in jobs.JOBS:
            print_json(jobs.schema(jobs.JOBS[name]))
        else:
            raise unknown("job", name, jobs.JOBS)
