"""`diffcern doctor`: what is installed, what this machine can do, and whether a model answers as it should."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from diffcern.cli.completing import NAMES, completing
from diffcern.cli.consoles import errors, print_json, results, waiting
from diffcern.cli.options import JsonOption

if TYPE_CHECKING:
    from diffcern.health import Health

MARKS = {True: ("ok", "green"), False: ("no", "bold red")}  # words, so that they are read without colour too
ADVICE = (
    "What failed above is computed wrongly here, or cannot be: install diffcern anew in an environment of its own, try "
    "--device cpu, and report what `diffcern doctor --json` prints if it stays."
)


def doctor(
    device: Annotated[
        str,
        typer.Option(
            help="that the self-test is on: auto, cpu, cuda or mps", autocompletion=completing(NAMES["device"])
        ),
    ] = "auto",
    as_json: JsonOption = False,
) -> None:
    """Versions, devices, folders and extras, and a self-test of seconds; exit code 1 where that fails."""
    with waiting():
        from diffcern.devices import device_named
        from diffcern.health import examine
        from diffcern.selftest import self_test

        chosen = device_named(device)
        health = examine(list(self_test(chosen)))
        if as_json:
            print_json({**asdict(health), "well": health.well})
        else:
            _present(health, str(chosen))
    if not health.well:
        errors().print(ADVICE)
        raise typer.Exit(1)


def _present(health: Health, tested: str) -> None:
    console = results()
    rows: list[tuple[str, Text | str]] = [
        ("diffcern", f"{health.diffcern}, Python {health.python}, {health.system}"),
        ("processor", f"{_listed(health.processor) or 'no fast paths known'}; {health.memory_gib:g} GiB of memory"),
        ("threads", f"{health.threads} of {health.cores} cores (OMP_NUM_THREADS changes it)"),
    ]
    for device in health.devices:
        memory = f", {device.memory_gib:g} GiB" if device.memory_gib else ""
        native = {True: ", bfloat16 native", False: ", bfloat16 emulated", None: ""}[device.bfloat16]
        fast = f", {health.bfloat16_speed:g} times float32's speed" if device.name == "cpu" else ""
        rows.append((device.name, f"{device.what}{memory}{native}{fast}"))
    rows += [(place.what, f"{place.path}, {place.free_gib:g} GiB free") for place in health.places]
    console.print(_table("this machine", rows))
    fitting = _listed(f"{each.name} {each.version}" for each in health.libraries if each.fits)
    rows = [("as wanted", fitting or "unknown: diffcern is not installed")]
    odd = [
        f"{each.name} {each.version or 'missing'}, wanted {each.wanted}" for each in health.libraries if not each.fits
    ]
    rows += [("not so", Text(_listed(odd), "bold red"))] if odd else []
    console.print(_table("libraries", rows))
    extras = [(each.name, "installed" if each.installed else each.install) for each in health.extras]
    console.print(_table("extras", extras or [("none", "known")]))
    tests = []
    for check in health.checks:
        word, style = MARKS[check.passed]
        tests.append((check.question, Text.assemble((word, style), f": {check.found}")))
    console.print(_table(f"self-test on {tested}", tests))


def _listed(texts: Iterable[str]) -> str:
    return ", ".join(texts)


def _table(title: str, rows: Iterable[tuple[str, Text | str]]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(max_width=24)
    table.add_column(overflow="fold")
    for name, text in rows:
        table.add_row(Text(name, "bold"), text)
    return table
