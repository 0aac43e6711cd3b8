"""Images classified with a prior alone: a row each, with the ranked labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from pydantic.dataclasses import dataclass

from diffcern.fields import (
    AbstainBelow,
    PriorName,
    View,
)
from diffcern.jobs.base import CHECKED, Events, Row
from diffcern.jobs.images import OverImages
from diffcern.jobs.rows import Work


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class Classify(OverImages):
    """Classify images with the prior alone: the label whose condition denoises the image best."""

    command = "classify"

    prior: PriorName
    view: View = "centre"
    abstain_below: AbstainBelow = None

    def load(self, out: Path | str | None, events: Events) -> Work:
        from diffcern.run.columns import CLASSIFIED
        from diffcern.run.digests import of_images
        from diffcern.run.predict import classify_rows

        given = self.asked("diffusion-classifier", {"view": self.view, **self.options}, prior=self.prior)
        classes, device = given.models.task.class_names, given.models.device

        def rows(todo: Sequence[int]) -> Iterator[Row]:
            return classify_rows(
                given.dataset, given.method, classes, seed=self.seed, device=device, todo=todo, least=self.abstain_below
            )

        settings = {**given.settings, "fingerprints": given.models.fingerprints(), "seed": self.seed}
        settings |= {"abstain_below": self.abstain_below} if self.abstain_below else {}
        digests, count = partial(of_images, given.dataset), given.method.evaluations
        return Work("classifying", settings, given.dataset.ids, rows, digests, evaluations=count, schema=CLASSIFIED)
