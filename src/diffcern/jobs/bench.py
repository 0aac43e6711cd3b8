"""Methods x shifts x severities, from a specification: records, a summary and a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass as plain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic.dataclasses import dataclass

from diffcern.errors import DiffcernError, UsageError
from diffcern.fields import ARGUMENT, Device, Spelling, help_of
from diffcern.jobs.base import CHECKED, Events, Silent, keeping
from diffcern.jobs.spread import Spread
from diffcern.watching import doing

if TYPE_CHECKING:
    from diffcern.report.explained import Picture

SLOW = "this processor has no bfloat16, which may take several times as long as float32: --set models.dtype=float32"


@plain(frozen=True)
class RunResult:
    """out: the run folder. skipped: reason by id of an image. cells: the summary, see `report.summarise`, and page: the
    report; empty and None while other shards have work left."""

    out: Path
    skipped: dict[str, str]
    cells: list[dict[str, Any]]
    page: Path | None


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class Bench(Spread):
    """Evaluate methods x shifts x severities; run again to continue. Writes records, summary.json, report.html."""

    command = "bench"

    spec: Annotated[
        str,
        help_of("a TOML specification, or one that ships: digits, scenes-depth, scenes-segmentation"),
        ARGUMENT,
    ]
    overrides: Annotated[tuple[str, ...], help_of("a.b=value, over the specification"), Spelling(("--set",))] = ()
    shard: Annotated[str, help_of("I/N: do every N-th unit of work, from the I-th (1 to N)")] = "1/1"
    device: Device = "auto"

    def carry_out(self, out: Path | None, *, overwrite: bool = False, events: Events = Silent()) -> RunResult:
        """out: the run folder, runs/NAME where none is given. overwrite: has no meaning here."""
        from diffcern.devices import device_named, multiplies_bfloat16
        from diffcern.files import check_folder
        from diffcern.run.evaluate import evaluate
        from diffcern.run.spec import check_same, read_spec

        resolved = read_spec(self.spec, self.overrides)
        folder = out or Path("runs") / resolved.name
        part, executor = parse_shard(self.shard), self.executor(self.device, events)
        device = self.device if self.ray else device_named(self.device)
        check_folder(folder)
        check_same(resolved, folder)
        if resolved.models.dtype == "bfloat16" and not isinstance(device, str) and multiplies_bfloat16(device) is False:
            events.say(SLOW)
        kept = f"the records are kept in {folder}: run the same command to continue"
        with keeping(lambda: kept), events.stages() as report, self.threads():
            complete, skipped = evaluate(
                resolved, folder, device=device, shard=part, executor=executor, progress=report
            )
        return RunResult(folder, skipped, *(report_on(folder) if complete else ([], None)))


def report_on(folder: Path, explain: int = 0, events: Events = Silent()) -> tuple[list[dict[str, Any]], Path]:
    """Writes summary.json and report.html of a run folder: the summary, and the page.

    explain: of how many images the page says why the prior answers as it does. Raises DiffcernError, and as `of_run`.
    """
    from diffcern.report.html import write_page
    from diffcern.report.records import load
    from diffcern.report.summary import summarise_run

    pictures: Sequence[Picture] = ()
    with doing(f"reading the records of {folder}"):
        run = load(folder)
        summary = summarise_run(run)
    if explain:
        from diffcern.jobs.explain_run import of_run
        from diffcern.report.explained import picture

        pictures = [picture(told, number) for number, told in enumerate(of_run(run, summary, explain, events=events))]
    try:
        with doing(f"writing the report of {folder}"):
            return summary, write_page(run, summary, pictures)
    except OSError as error:
        raise DiffcernError(
            f"cannot write the report into {folder}: {error.strerror}. Mend that, then run `diffcern report {folder}`"
        ) from error


def parse_shard(text: str) -> tuple[int, int]:
    """ "2/4" as (1, 4). Raises UsageError."""
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise UsageError(f"--shard takes I/N with 1 <= I <= N, for example 2/4, not {text!r}")
    return int(index) - 1, int(count)
