"""The margins of canonical views, fitted on clean images and kept beside the prior; see `clean_gains.py`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic.dataclasses import dataclass

from diffcern.errors import UsageError
from diffcern.fields import PredictorName, PriorName, TaskOption, help_of
from diffcern.jobs.base import CHECKED, Events, Row
from diffcern.jobs.calibrate import place_for
from diffcern.jobs.images import OverImages
from diffcern.jobs.rows import Work
from diffcern.kinds import CLASSIFICATION

if TYPE_CHECKING:
    from diffcern.data import Dataset
    from diffcern.methods.canonical import Canonical

KEEP = "the folder for clean_gains.json (default: the prior's own)"
METHOD = "canonical"


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class CalibrateViews(OverImages):
    """Fit how much likelier than a clean image its views get; canonical goes by it from then on."""

    command = "calibrate views"

    prior: PriorName
    predictor: PredictorName
    task: TaskOption = CLASSIFICATION.name
    count: Annotated[int | None, help_of("of the images, chosen by the seed", ge=1)] = None
    skip: Annotated[int, help_of("of the images that a bench of so many takes, leave these out", ge=0)] = 0
    keep: Annotated[str | None, help_of(KEEP)] = None

    def load(self, out: Path | str | None, events: Events) -> Work:
        from diffcern.clean_gains import check_count, margin, percentiles
        from diffcern.data import subset
        from diffcern.methods.canonical import Canonical
        from diffcern.priors.clean import write_clean_gains
        from diffcern.run.digests import of_images

        if self.calibration or self.options.get("margin") is not None:
            raise UsageError("the margin is what is fitted here: leave --calibration and --set margin out")
        folder = place_for(self.keep, self.prior)
        named: dict[str, Any] = {"predictor": self.predictor, "prior": self.prior, "task": self.task}
        given = self.asked(METHOD, {**self.options, "margin": 0.0}, calibrated=False, **named)
        method = given.method
        assert isinstance(method, Canonical)
        dataset = subset(given.dataset, self.count, self.seed, self.skip)
        families = method.search.names
        check_count(len(dataset))

        def rows(todo: Sequence[int]) -> Iterator[Row]:
            return gain_rows(dataset, method, self.seed, todo)

        def scores(found: Sequence[Row]) -> list[Row]:
            known = percentiles([{name: row[name] for name in families} for row in found])
            path = str(write_clean_gains(known, folder))
            told: list[Row] = [
                {"views": name, "images": len(found), "margin": margin(known, name)} for name in families
            ]
            return [{**row, "most": known[row["views"]][-1].item(), "kept": path} for row in told]

        settings = {
            **given.settings,
            "count": self.count,
            "skip": self.skip,
            "fingerprints": given.models.fingerprints(),
            "seed": self.seed,
        }
        digests = partial(of_images, dataset)
        return Work("looking", settings, dataset.ids, rows, digests, evaluations=method.evaluations, scores=scores)


def gain_rows(dataset: Dataset, method: Canonical, seed: int, todo: Sequence[int]) -> Iterator[Row]:
    """What each image gains by each family, in nats."""
    import torch

    from diffcern.canonical import gains_of
    from diffcern.data import UnreadableImage, readable
    from diffcern.run.predict import unreadable

    for sample in readable(dataset, todo):
        if isinstance(sample, UnreadableImage):
            yield unreadable(sample)
            continue
        begin = time.perf_counter()
        with torch.no_grad():
            image = sample.image[None].to(method.prior.device)
            gains = gains_of(method.prior, image, sample.id, method.search, method.predictor.view, seed)
        seconds = round(time.perf_counter() - begin, 4)
        yield {"id": sample.id, **gains, "seconds": seconds, "error": None}
