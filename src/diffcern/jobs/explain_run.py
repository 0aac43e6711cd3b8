"""Why the prior of a bench takes some of its images for what it does, for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from diffcern.errors import UsageError
from diffcern.jobs.base import Events, Silent
from diffcern.jobs.explain import Told, told_of

if TYPE_CHECKING:
    from diffcern.report.run import Run


def of_run(
    run: Run, summary: Sequence[Mapping[str, Any]], count: int, device: str = "auto", events: Events = Silent()
) -> list[Told]:
    """Of the images that the report shows before and after, the first `count`: fixed, broken and still wrong in turn.

    summary: the run's `summarise_run`. The models are those that the run's specification names. Raises UsageError for a
    run without a prior, without classes or without such images, DiffcernError where a model cannot be read.
    """
    from diffcern.data import Sample
    from diffcern.data.images import decode
    from diffcern.devices import device_named
    from diffcern.kinds import KINDS
    from diffcern.report.gallery import focus_of, shown
    from diffcern.run.models import load_models
    from diffcern.run.spec import read_world

    folder = run.path
    if not (folder / "spec.toml").is_file():
        raise UsageError(f"{folder} has no spec.toml, which would name its prior: leave --explain out")
    spec = read_world(folder / "spec.toml")
    if spec.models.prior is None or KINDS[spec.models.task].dense:
        raise UsageError(f"{folder} is no bench of classes with a prior, which could be explained: leave --explain out")
    rows = shown(run, focus_of(summary))[:count]
    if not rows:
        raise UsageError(f"{folder} holds no examples of what was fixed or broken: leave --explain out")
    models = load_models(spec.models, device_named(device), labels=run.classes)
    samples = [Sample(row["id"], decode(row["image"], row["id"]), -1) for row, _ in rows]
    with events.rows("explaining", len(samples), 0, 0) as heard:
        told = list(told_of(models, samples, heard, seed=spec.seed))
    return [
        replace(each, id=f"{row['id']}, {row['shift']} {row['severity']}, {kind}")
        for each, (row, kind) in zip(told, rows, strict=True)
    ]
