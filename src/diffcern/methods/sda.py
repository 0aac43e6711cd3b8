"""SDA (Guo et al. 2024, arXiv 2406.04295): the purified image goes to a predictor that knows what purification does.

    answer = softmax f(x) + softmax f'(purify(x)),    f' = f fine-tuned on purified synthetic images

Purification leaves images that look clean and are not: the denoiser's own traces cost a predictor accuracy. f' was
trained with exactly these traces, by `diffcern align`.
"""

from __future__ import annotations

import copy
from pathlib import Path

from diffcern.alignment import PREDICTOR, read_alignment
from diffcern.errors import UsageError
from diffcern.fingerprints import fingerprint
from diffcern.methods.base import Count
from diffcern.methods.purification import PURIFIERS, Ensemble, Purified
from diffcern.predictors import Predictor
from diffcern.predictors.adapted import load_weights
from diffcern.priors import Prior


class SDA(Purified):
    """aligned: the folder that `diffcern align` made, which says how to purify, so that targets get what f' saw.

    ensemble: "sum", the paper's; "none" is f' alone. skip, cache, rows: as in `purification.DDA`. Raises UsageError
    where predictor, classes or prior are not those of the folder, DiffcernError where it is not finished or damaged.
    """

    def __init__(
        self,
        predictor: Predictor,
        prior: Prior,
        *,
        aligned: str = "",
        ensemble: Ensemble = "sum",
        skip: float | None = None,
        cache: str = "",
        rows: Count = 64,
    ) -> None:
        if not aligned:
            raise UsageError("sda needs aligned, the folder that `diffcern align` made: aligned=FOLDER")
        folder = Path(aligned).expanduser()
        alignment = read_alignment(folder)
        alignment.check(predictor, prior)
        after = load_weights(copy.deepcopy(predictor), folder / PREDICTOR)
        kind = PURIFIERS[alignment.method]
        purifier = kind(predictor, prior, **alignment.options, cache=cache, rows=rows).purifier
        super().__init__(predictor, after, purifier, ensemble, skip)
        self.loaded = fingerprint(after)  # for runs that go on only with what they began with
