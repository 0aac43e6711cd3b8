"""Questions through a model that answers them: one row each, before and after the image was purified."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from diffcern.alignment import PREDICTOR, read_alignment
from diffcern.data import Question, Questions, UnreadableImage, readable
from diffcern.data.corruptions import COMMON, EXTRA
from diffcern.data.shifts import SHIFTS
from diffcern.data.shifts import shift as shifted
from diffcern.errors import DiffcernError, UsageError, unknown
from diffcern.methods import checked_options
from diffcern.methods.purification import PURIFIERS, purifier_of, unused_predictor
from diffcern.methods.purified import Ensemble, join
from diffcern.predictors.question_answering import Answerer, load_answerer
from diffcern.priors import Prior
from diffcern.purifier import Purifier
from diffcern.run.batch import batch_of

PURIFICATIONS = ("diffpure", "dda", "sda")


@dataclass(frozen=True)
class Purification:
    """What answers after purification: answerer, that about the purified image; ensemble: of the two answers one."""

    purifier: Purifier
    answerer: Answerer
    ensemble: Ensemble


def purification(method: str, options: Mapping[str, Any], answerer: Answerer, prior: Prior) -> Purification:
    """One of `PURIFICATIONS` by its options, as `diffcern adapt` takes them.

    Raises UsageError for unknown methods and options, and as `methods.sda.SDA` where sda's folder is not of these
    models; DiffcernError where that is not finished.
    """
    if method not in PURIFICATIONS:
        raise UsageError(f"questions are answered after {', '.join(PURIFICATIONS)}, not {method!r}")
    chosen = checked_options(method, options)
    if chosen.get("skip") is not None:
        raise UsageError("every image is purified where questions are answered: leave skip out")
    if method != "sda":
        built = PURIFIERS[method](unused_predictor(), prior, **chosen)
        return Purification(built.purifier, answerer, built.ensemble)
    if not chosen.get("aligned"):
        raise UsageError("sda needs aligned, the folder that `diffcern align-answerer` made: aligned=FOLDER")
    folder = Path(chosen["aligned"]).expanduser()
    alignment = read_alignment(folder)
    alignment.check(cast("Any", answerer), prior)
    if not (folder / PREDICTOR / "config.json").is_file():
        raise DiffcernError(f"{folder} is not finished: run its `diffcern align-answerer` again")
    after = load_answerer(str(folder / PREDICTOR)).to(prior.device)
    kept = {name: chosen[name] for name in ("cache", "rows") if name in chosen}
    purifier = purifier_of(alignment, unused_predictor(), prior, **kept)
    return Purification(purifier, after, chosen.get("ensemble", "sum"))


def check_shift(name: str, severity: int) -> None:
    """Raises UsageError for a shift of images that does not exist."""
    known = ["clean", *COMMON, *EXTRA, *SHIFTS]
    if name not in known:
        raise unknown("shift", name, known)
    if severity not in (range(1, 6) if name != "clean" else (0,)):
        raise UsageError(f"give --shift NAME with --severity 1 to 5, and clean with 0, not {name} with {severity}")


@torch.no_grad()
def answer_rows(
    questions: Questions,
    answerer: Answerer,
    purification: Purification | None,
    *,
    shift: str,
    severity: int,
    seed: int,
    batch_size: int,
    todo: Sequence[int],
) -> Iterator[dict[str, Any]]:
    """Rows with the answers and their probabilities, by choice; where nothing is purified, those "before" alone.

    shift, severity: what is done to the whole images first, see `data.shifts.shift`. todo: rows of the questions. One
    that cannot be read, or has no choices, is a row with an error.
    """
    for _, places in groupby(todo, lambda place: place // batch_size):  # the same batches whatever is left of the work
        asked = []
        for item in readable(questions, list(places)):
            try:
                if isinstance(item, UnreadableImage):
                    raise item
                answerer.read(item.question, item.choices)
                asked.append(replace(item, image=shifted(item.image, shift, severity, seed, item.id, whole=True)))
            except UnreadableImage as error:
                yield {"id": error.name, "error": error.reason}
            except UsageError as error:
                assert isinstance(item, Question)
                yield {"id": item.id, "error": str(error)}
        if asked:
            yield from _rows(asked, answerer, purification, seed)


def _rows(
    asked: Sequence[Question], answerer: Answerer, purification: Purification | None, seed: int
) -> Iterator[dict[str, Any]]:
    begin = time.perf_counter()
    texts = [question.question for question in asked], [question.choices for question in asked]
    eye = answerer.eye
    images = batch_of([question.image for question in asked], eye.mean.device)
    found = {"before": answerer(images, *texts).exp()}
    evaluations = [0] * len(asked)
    if purification is not None:
        seen, ids = eye.view(images), [question.id for question in asked]
        paths = purification.purifier.paths(seen, ids, seed)
        clean = eye.of_view(purification.purifier(seen, ids, seed, paths))
        found["purified"] = purification.answerer(clean, *texts).exp()
        found["after"] = join(found["before"], found["purified"], purification.ensemble)
        evaluations = [path.evaluations for path in paths]
    seconds = (time.perf_counter() - begin) / len(asked)
    for row, question in enumerate(asked):
        answers: dict[str, Any] = {}
        for branch, table in found.items():
            answers |= _answer(branch, table[row], question.choices)
        yield {
            "id": question.id,
            "kind": question.kind,
            "question": question.question,
            "truth": question.answer,
            "choices": list(question.choices),
            **answers,
            "nfe_forward": evaluations[row],
            "seconds": round(seconds, 4),
            "error": None,
        }


def _answer(branch: str, probabilities: Tensor, choices: Sequence[str]) -> dict[str, Any]:
    own = [float(f"{p:.6g}") for p in probabilities[: len(choices)].tolist()]
    best = int(probabilities.argmax())
    return {branch: choices[best], f"{branch}_confidence": own[best], f"{branch}_probabilities": own}
