"""A temperature for a method's answers, fitted on images with known answers and kept beside the prior."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic.dataclasses import dataclass

from diffcern.errors import DiffcernError, UsageError, unknown
from diffcern.fields import PriorName, help_of
from diffcern.jobs.base import CHECKED, Events, Row
from diffcern.jobs.images import OverImages, calibration_folder
from diffcern.jobs.rows import Work
from diffcern.kinds import KINDS

KEEP = "the folder for calibration.json (default: the prior's own)"


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class Calibrate(OverImages):
    """Fit a temperature on labelled images that were held out; classify and adapt use it from then on."""

    command = "calibrate images"
    lists = True

    prior: PriorName
    predictor: Annotated[str | None, help_of("for methods that need one")] = None
    method: Annotated[str, help_of("see `diffcern list methods`")] = "diffusion-classifier"
    per_class: Annotated[bool, help_of("a number for each class besides")] = False
    keep: Annotated[str | None, help_of(KEEP)] = None

    def load(self, out: Path | str | None, events: Events) -> Work:
        from diffcern.run.columns import KNOWN
        from diffcern.run.digests import of_images
        from diffcern.run.predict import known_rows
        from diffcern.run.truths import right_answers

        if self.calibration:
            raise UsageError("calibration is of what was fitted before: leave it out here, and give keep")
        folder = place_for(self.keep, self.prior)
        names: dict[str, Any] = {"predictor": self.predictor, "prior": self.prior}
        given = self.asked(self.method, self.options, calibrated=False, **names)
        models, dataset = given.models, given.dataset
        if models.task.kind.dense:
            raise UsageError(
                f"a temperature is of the probabilities of classes, and this is {models.task.name}: give a classifier"
            )
        if not given.method.answers_alone:
            raise UsageError(
                f"{self.method} reads the statistics of a batch: bench it on held-out images, and give the run folder "
                "to `diffcern calibrate run`"
            )
        known = {name: place for place, name in enumerate(models.task.class_names)}
        answers = right_answers(dataset, self.images, models.task.name, self.class_map)
        right = [[known[name] for name in names if name in known] for names in answers]
        if not any(right):
            raise UsageError(
                f"{self.images} has no labels, or none that the models know: give a labelled data set, such as "
                "imagefolder:FOLDER with a folder for each class"
            )

        def rows(todo: Sequence[int]) -> Iterator[Row]:
            return known_rows(dataset, given.method, right, seed=self.seed, device=models.device, todo=todo)

        def scores(found: Sequence[Row]) -> list[Row]:
            return [fitted(found, given.about(("episodic", 1)), folder, self.per_class)]

        settings = {**given.settings, "fingerprints": models.fingerprints(), "seed": self.seed}
        digests, count = partial(of_images, dataset), given.method.evaluations
        return Work("answering", settings, dataset.ids, rows, digests, evaluations=count, schema=KNOWN, scores=scores)


def of_run(run: Path, entry: str | None, shift: str, per_class: bool, keep: str | None) -> Row:
    """A temperature for an entry of a bench, fitted on the answers that its run folder holds; see `fitted`."""
    from diffcern.calibration import described, names_folders
    from diffcern.methods import reads_batch
    from diffcern.run.spec import read_spec
    from diffcern.run.store import answers_of
    from diffcern.texts import read_json

    if not (run / "spec.toml").is_file():
        raise UsageError(f"{run} is no folder of a bench: it has no spec.toml. Give one that `diffcern bench` wrote")
    spec = read_spec(run / "spec.toml")
    name = entry or next(iter(spec.entries))
    if entry is None and len(spec.entries) > 1:
        raise UsageError(f"--entry says whose answers, one of {', '.join(spec.entries)}")
    if name not in spec.entries:
        raise unknown("entry", name, list(spec.entries))
    if KINDS[spec.models.task].dense:
        raise UsageError(
            f"a temperature is of the probabilities of classes, and {run} is of {spec.models.task}: give a "
            "run of classification"
        )
    shifts = ["all", *dict.fromkeys(under for under, _ in spec.shifts.cells)]
    if shift not in shifts:
        raise unknown("shift of this run", shift, shifts)
    folder, chosen = place_for(keep, spec.models.prior), spec.entries[name]
    if names_folders(chosen.options):
        raise UsageError(f"{name} reads folders that the run does not hold: use `diffcern calibrate images`")
    rows = [row for row in answers_of(run, name) if shift in ("all", row["shift"])]
    prints, classes = (read_json(run / file) for file in ("fingerprint.json", "classes.json"))
    alone = chosen.protocol == "episodic" and not reads_batch(chosen.method, chosen.options)
    how: dict[str, Any] = {"labels": spec.models.labels, "templates": spec.models.templates}
    how["stream"] = (chosen.protocol, 1 if alone else chosen.batch_size)
    return fitted(rows, described(chosen.method, chosen.options, classes, prints, **how), folder, per_class)


def fitted(rows: Sequence[Row], about: dict[str, Any], folder: Path, per_class: bool) -> Row:
    """What rows with a target and the logarithms of probabilities come to, after it was kept in the folder.

    The error after is that of images which the temperature was not fitted on: five folds.
    """
    import numpy as np

    from diffcern import calibration

    known = [row for row in rows if row["target"] is not None and row["target"] >= 0]
    if not known:
        raise DiffcernError("none of the images has a known answer: calibrate on labelled images")
    logits = np.array([row["log_probabilities"] for row in known], dtype=np.float64)
    targets, groups = np.array([row["target"] for row in known]), [row["id"] for row in known]
    temperature, bias = calibration.fit(logits, targets, per_class)
    held = calibration.held_out(logits, targets, groups, per_class)
    path = calibration.keep(folder, calibration.Calibration(temperature, bias, about, len(targets)))
    score: Row = {
        "images": len(targets),
        "accuracy": round(float((logits.argmax(1) == targets).mean()), 4),
        "temperature": temperature,
    }
    for name, p in (("before", calibration.calibrated(logits, 1.0)), ("after", held)):
        score[f"calibration_error_{name}"] = round(calibration.calibration_error(p, targets), 4)
        score[f"interval_{name}"] = [round(end, 4) for end in calibration.interval(p, targets)]
        score[f"risk_of_the_surer_half_{name}"] = round(calibration.risk_of_half(p, targets), 4)
    return {**score, "kept": str(path)}


def place_for(keep: str | None, prior: str | None) -> Path:
    """The folder for a calibration. Raises UsageError where there is none."""
    own = None if (prior or "").startswith("embedded:") else calibration_folder(prior)  # that one is the package's
    folder = Path(keep).expanduser() if keep else own
    if folder is None:
        raise UsageError("the prior is no folder that a calibration could be kept in: give --keep FOLDER")
    if not folder.is_dir():
        raise UsageError(f"no such folder: {folder}. Make it first, or give another --keep")
    return folder
