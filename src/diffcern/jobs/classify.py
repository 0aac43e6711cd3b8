"""Images classified with a prior alone: a row each, with the ranked labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from pathlib import Path

from pydantic.dataclasses import dataclass

from diffcern.fields import (
    AllowPickle,
    ClassMap,
    Compile,
    Device,
    Dtype,
    Images,
    Labels,
    MaxSide,
    Options,
    Preset,
    PriorName,
    Seed,
    Templates,
    View,
)
from diffcern.jobs.base import CHECKED, Events, Row
from diffcern.jobs.images import asked
from diffcern.jobs.rows import RowsJob, Work


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class Classify(RowsJob):
    """Classify images with the prior alone: the label whose condition denoises the image best."""

    command = "classify"

    images: Images
    prior: PriorName
    labels: Labels = None
    templates: Templates = None
    class_map: ClassMap = None
    preset: Preset = "small"
    options: Options = field(default_factory=dict)
    view: View = "centre"
    max_side: MaxSide = 4096
    device: Device = "auto"
    dtype: Dtype = "float32"
    compile: Compile = False
    allow_pickle: AllowPickle = False
    seed: Seed = 0

    def load(self, out: Path | None, events: Events) -> Work:
        from diffcern.run.columns import CLASSIFIED
        from diffcern.run.predict import classify_rows, digests

        given = asked(self, {"prior": self.prior}, "diffusion-classifier", {"view": self.view, **self.options})
        classes, device = given.models.task.class_names, given.models.device

        def rows(done: set[str]) -> Iterator[Row]:
            return classify_rows(given.dataset, given.method, classes, seed=self.seed, device=device, done=done)

        settings = {**given.settings, "fingerprints": given.models.fingerprints(), "seed": self.seed}
        digest, count = digests(given.dataset) if out else None, given.method.evaluations
        return Work("classifying", settings, len(given.dataset), rows, digest, evaluations=count, schema=CLASSIFIED)
