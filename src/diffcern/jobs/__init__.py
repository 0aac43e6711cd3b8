"""Work as values: what is to be done, and with what, whoever asks for it.

    job = Classify(images="photos", prior="hf:OWNER/NAME", labels="cat,dog")
    table = job.carry_out(Path("answers.parquet"))        # the same again goes on where it was interrupted

`diffcern.classify("photos", prior=..., labels=...)` is the same in one call. Imports no torch until work begins.
"""

from diffcern.jobs.adapt import Adapt
from diffcern.jobs.align import Align
from diffcern.jobs.answer import Answer
from diffcern.jobs.base import Events, Interrupted, Job, Silent, make, schema
from diffcern.jobs.bench import Bench
from diffcern.jobs.classify import Classify
from diffcern.jobs.explain import Explain
from diffcern.jobs.match import Match
from diffcern.jobs.purify import Purify
from diffcern.jobs.train import (
    TrainAnswerer,
    TrainClip,
    TrainMae,
    TrainPredictor,
    TrainPrior,
    TrainTextPrior,
)

__all__ = [
    "JOBS",
    "Adapt",
    "Align",
    "Answer",
    "Bench",
    "Classify",
    "Events",
    "Explain",
    "Interrupted",
    "Job",
    "Match",
    "Purify",
    "Silent",
    "TrainAnswerer",
    "TrainClip",
    "TrainMae",
    "TrainPredictor",
    "TrainPrior",
    "TrainTextPrior",
    "make",
    "schema",
]
JOBS: dict[str, type[Job]] = {
    kind.command: kind
    for kind in (
        *(Adapt, Classify, Explain, Match, Answer, Purify, Align, Bench),
        *(TrainPrior, TrainPredictor, TrainMae, TrainTextPrior, TrainClip, TrainAnswerer),
    )
}
