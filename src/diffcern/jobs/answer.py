"""Questions about images, answered before and after these are purified: a row each, and accuracies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic.dataclasses import dataclass

from diffcern.fields import (
    ARGUMENT,
    MaxSide,
    Options,
    Preset,
    help_of,
)
from diffcern.jobs.base import CHECKED, Events, Row
from diffcern.jobs.rows import RowsJob, Work

OF_PRIORS = frozenset(("method", "preset", "options", "dtype", "compile"))  # of the purification


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class Answer(RowsJob):
    """Answer questions about images by choices, before and after purifying them, and with both answers together."""

    command = "answer"
    lists = True

    questions: Annotated[
        str,
        help_of("embedded:scenes, or questions:FILE.parquet with columns image, question, answer, choices"),
        ARGUMENT,
    ]
    predictor: Annotated[str, help_of("a LLaVA: hf:OWNER/NAME or a folder")]
    prior: Annotated[str | None, help_of("purify the images with it: hf:OWNER/NAME or a folder")] = None
    method: Annotated[str, help_of("the purification: diffpure, dda or sda")] = "dda"
    preset: Preset = "small"
    options: Options = field(default_factory=dict)
    shift: Annotated[str, help_of("corrupt the images first, see `diffcern list`")] = "clean"
    severity: Annotated[int, help_of("of the shift, 1 to 5", ge=0, le=5)] = 0
    batch_size: Annotated[int, help_of("questions at a time", ge=1)] = 16
    max_side: MaxSide = 4096

    def idle(self) -> tuple[frozenset[str], str]:
        if self.prior:
            return frozenset(), ""
        return OF_PRIORS, "only where the images are purified; give --prior too"

    def load(self, out: Path | str | None, events: Events) -> Work:
        from diffcern.data import load_questions
        from diffcern.devices import device_named
        from diffcern.errors import UsageError
        from diffcern.fingerprints import fingerprint
        from diffcern.kinds import QUESTION_ANSWERING
        from diffcern.methods.presets import over_preset
        from diffcern.predictors.question_answering import load_answerer
        from diffcern.run.answer import PURIFICATIONS, answer_rows, check_shift, purification
        from diffcern.run.columns import answered
        from diffcern.run.digests import of_questions
        from diffcern.run.models import load_models
        from diffcern.run.spec import parse_models

        if self.method not in PURIFICATIONS:
            raise UsageError(f"--method is one of {', '.join(PURIFICATIONS)}, not {self.method!r}")
        check_shift(self.shift, self.severity)
        options = over_preset(self.method, self.preset, self.options, QUESTION_ANSWERING)
        device = device_named(self.device)
        data = load_questions(self.questions, max_side=self.max_side)
        answerer = load_answerer(self.predictor, allow_pickle=self.allow_pickle).to(device)
        settings: dict[str, Any] = {"questions": self.questions, "max_side": self.max_side, "shift": self.shift}
        settings |= {"severity": self.severity, "predictor": self.predictor, "seed": self.seed}
        settings["fingerprints"] = {"predictor": fingerprint(answerer)}
        cleaning = None
        if self.prior:
            asked = self.named(prior=self.prior)
            prior = load_models(parse_models(asked), device).prior
            assert prior is not None  # it was named
            cleaning = purification(self.method, options, answerer, prior)
            settings |= {**asked, "method": self.method, "options": options}
            settings["fingerprints"] |= {"prior": fingerprint(prior), "after": fingerprint(cleaning.answerer)}

        def rows(todo: Sequence[int]) -> Iterator[Row]:
            how: dict[str, Any] = {name: getattr(self, name) for name in ("shift", "severity", "seed", "batch_size")}
            return answer_rows(data, answerer, cleaning, **how, todo=todo)

        return Work(
            "answering", settings, data.ids, rows, partial(of_questions, data), schema=answered(cleaning is not None)
        )

    @staticmethod
    def scores(rows: Sequence[Row]) -> list[Row]:
        from diffcern.tasks.question_answering import accuracies

        return accuracies(rows)
