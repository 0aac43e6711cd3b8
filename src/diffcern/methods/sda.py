"""SDA (Guo et al. 2024, arXiv 2406.04295): the purified image goes to a predictor that knows what purification does.

    answer = softmax f(x) + softmax f'(purify(x)),    f' = f fine-tuned on purified synthetic images

Purification leaves images that look clean and are not: the denoiser's own traces cost a predictor accuracy. f' was
trained with exactly these traces, by `diffcern align`. For segmentation the softmax is that of every pixel; the answer
of two depth maps is their mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from diffcern.alignment import PREDICTOR, read_alignment
from diffcern.copies import duplicate
from diffcern.errors import UsageError
from diffcern.fingerprints import fingerprint
from diffcern.methods.base import Count, Method
from diffcern.methods.diffusion_tta import SMALL, SMALL_FOR, DiffusionTTA
from diffcern.methods.purification import purifier_of
from diffcern.methods.purified import Ensemble, Purified
from diffcern.methods.source import Source
from diffcern.predictors import Predictor
from diffcern.predictors.adapted import load_weights
from diffcern.priors import Prior
from diffcern.purifier import Purifier
from diffcern.tasks import Task


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
        after, purifier = read_aligned(aligned, predictor, prior, cache, rows)
        super().__init__(Source(predictor), Source(after), predictor, purifier, ensemble, skip)
        self.loaded = fingerprint(after)  # for runs that go on only with what they began with


class SDAWithTTA(Purified):
    """SDA whose predictors are adapted to each image by Diffusion-TTA (no paper; both from the same prior).

    feedback: which of them, "source" (f on the image), "aligned" (f' on the purified image) or "both". The options
    between `feedback` and `ensemble` are Diffusion-TTA's, the others SDA's.
    """

    small: ClassVar[Mapping[str, Any]] = SMALL
    small_for: ClassVar[Mapping[str, Mapping[str, Any]]] = SMALL_FOR

    def __init__(
        self,
        predictor: Predictor,
        prior: Prior,
        task: Task,
        *,
        aligned: str = "",
        feedback: Literal["source", "aligned", "both"] = "both",
        steps: Count = 5,
        draws: Count = 180,
        strategy: str = "uniform",
        weighting: str = "eps",
        optimizer: str = "adam",
        learning_rate: float = 1e-5,
        temperature: float = 1.0,
        familiar: float | None = None,
        ensemble: Ensemble = "sum",
        skip: float | None = None,
        cache: str = "",
        rows: Count = 64,
    ) -> None:
        after, purifier = read_aligned(aligned, predictor, prior, cache, rows)

        def answering(model: Predictor, branch: str) -> Method:
            if feedback not in (branch, "both"):
                return Source(model)
            return DiffusionTTA(
                model,
                prior,
                task,
                steps=steps,
                draws=draws,
                strategy=strategy,
                weighting=weighting,
                optimizer=optimizer,
                learning_rate=learning_rate,
                temperature=temperature,
                adapt_prior=False,
                familiar=familiar,
                rows=rows,
            )

        branches = answering(predictor, "source"), answering(after, "aligned")
        super().__init__(*branches, predictor, purifier, ensemble, skip)
        self.loaded = fingerprint(after)


def read_aligned(aligned: str, predictor: Predictor, prior: Prior, cache: str, rows: int) -> tuple[Predictor, Purifier]:
    """f' and the purification that it was trained with, from the folder of `diffcern align`. Raises as `SDA`."""
    if not aligned:
        raise UsageError("sda needs aligned, the folder that `diffcern align` made: aligned=FOLDER")
    folder = Path(aligned).expanduser()
    alignment = read_alignment(folder)
    alignment.check(predictor, prior)
    after = load_weights(duplicate(predictor), folder / PREDICTOR)
    return after, purifier_of(alignment, predictor, prior, cache=cache, rows=rows)
