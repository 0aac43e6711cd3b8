"""Methods that change the image and not the predictor: DiffPure, DDA, GDA, and SDA with its adapted predictor.

    x_hat = purify(x)        answer = ensemble(softmax f(x), softmax f(x_hat))

Each differs in how far it noises, what guides it back, and how the two answers are joined.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from diffcern.alignment import FILE, Alignment
from diffcern.cache import TensorCache
from diffcern.errors import DiffcernError, UsageError
from diffcern.feature_guides import MarginalEntropy, PatchContrast, StyleDirection
from diffcern.fingerprints import fingerprint
from diffcern.guides import Border, Energy, Form, Guide, LowPass, mean_square
from diffcern.kinds import DEPTH, QUESTION_ANSWERING, SEGMENTATION
from diffcern.memory import check_memory
from diffcern.methods.base import Count, frozen_copy, frozen_view
from diffcern.methods.options import checked
from diffcern.methods.purified import Ensemble, Purified, Vote
from diffcern.methods.source import Source
from diffcern.predictors import Predictor, load_predictor
from diffcern.priors import Prior
from diffcern.purifier import Purifier, Route, Start
from diffcern.solvers import ONE_SHOT, REVERSE_SDE

ADDED = {"copies": 1, "vote": "mean"}


class DiffPure(Purified):
    """DiffPure (Nie et al. 2022, arXiv 2205.07460): no guide; the answer is that on the purified image.

    Defaults: the paper's for ImageNet, t* = 0.15 T (the 150th timestep, 149), back by the reverse SDE without clipping
    the estimate. start "auto": for each image by the noise in it, none where there is none (see `purifier.Route`).
    Its CIFAR-10 form is start 99, solver "ddpm", clip true. copies, vote: the answer is one of several purified copies,
    see `purified.voted`. cache: a folder that keeps purified images for other runs; "" keeps none.
    """

    small: ClassVar[Mapping[str, Any]] = {"start": 199, "steps": 1, "solver": ONE_SHOT, "clip": True}
    added: ClassVar[Mapping[str, Any]] = ADDED

    def __init__(
        self,
        predictor: Predictor,
        prior: Prior,
        *,
        start: Start = 149,
        steps: Count = 150,
        solver: str = REVERSE_SDE,
        eta: float = 0.0,
        clip: bool = False,
        ensemble: Ensemble = "none",
        skip: float | None = None,
        copies: Count = 1,
        vote: Vote = "mean",
        cache: str = "",
        rows: Count = 64,
    ) -> None:
        route = Route(start, steps, solver, eta, clip)
        purifier = Purifier(frozen_view(prior), route, cache=cache_at(cache), rows=rows)
        source = Source(predictor)
        super().__init__(source, source, predictor, purifier, ensemble, skip, copies, vote)


class DDA(Purified):
    """Diffusion-driven adaptation (Gao et al. 2023, arXiv 2207.03442): low frequencies of the given image guide.

    Defaults: the paper's: 50 ancestral steps from t = 499 of 1000, weight 6, factor 4, and the sum of both answers.
    form, bounded: see `guides.Guide`; border: see `guides.low_pass_matrix`. reference_batch_size: the published code
    takes one norm over a batch of B images, which makes its weight about w / sqrt(B); B = 4 gives the published
    figures' strength, whatever the batch here.
    """

    small: ClassVar[Mapping[str, Any]] = {
        "start": 399,
        "steps": 3,
        "weight": 0.1,
        "form": "estimate",
        "border": "inside",
        "bounded": False,
    }
    added: ClassVar[Mapping[str, Any]] = ADDED
    # coarser images cost maps and places more than they cost a class
    small_for: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        task: {"start": 199, "steps": 20, "weight": 0.4} for task in (SEGMENTATION.name, DEPTH.name, QUESTION_ANSWERING)
    }

    def __init__(
        self,
        predictor: Predictor,
        prior: Prior,
        *,
        start: Start = 499,
        steps: Count = 50,
        solver: str = "ddpm",
        eta: float = 0.0,
        weight: float = 6.0,
        factor: Count = 4,
        border: Border = "zeros",
        form: Form = "through",
        bounded: bool = True,
        reference_batch_size: Count = 1,
        ensemble: Ensemble = "sum",
        skip: float | None = None,
        copies: Count = 1,
        vote: Vote = "mean",
        cache: str = "",
        rows: Count = 64,
    ) -> None:
        strength = weight / reference_batch_size**0.5 if form != "replace" else weight
        guide = Guide([(strength, LowPass(factor, border))], form, bounded)
        settings = {"low_pass": strength, "factor": factor, "border": border, "form": form, "bounded": bounded}
        route = Route(start, steps, solver, eta)
        purifier = Purifier(frozen_view(prior), route, guide, settings, cache_at(cache), rows)
        source = Source(predictor)
        super().__init__(source, source, predictor, purifier, ensemble, skip, copies, vote)


class GDA(Purified):
    """Generalised diffusion adaptation (Tsai et al. 2024, arXiv 2404.00095): marginal entropy over views, style,
    content and squared error guide; the answer is the branch of lower entropy.

    entropy, style, content, mse: weights, 0 leaves a term out. style needs `clip` ("hf:openai/clip-vit-large-patch14")
    and goes from the text style_source to style_target; content needs `content_layer`, the name of a module of the
    predictor. scaled, mixed: the published gradient, times the step's variance, of energies that look at what is known
    at that time (see `guides.Guide`). The paper gives no weights that fit any prior; these are ours.
    """

    small: ClassVar[Mapping[str, Any]] = {
        "start": 399,
        "steps": 20,
        "form": "estimate",
        "scaled": False,
        "mixed": False,
        "entropy": 0.01,
        "mse": 100.0,
    }
    added: ClassVar[Mapping[str, Any]] = ADDED

    def __init__(
        self,
        predictor: Predictor,
        prior: Prior,
        *,
        start: Start = 499,
        steps: Count = 50,
        solver: str = "ddpm",
        eta: float = 0.0,
        form: Form = "through",
        scaled: bool = True,
        mixed: bool = True,
        entropy: float = 20.0,
        style: float = 0.0,
        content: float = 0.0,
        mse: float = 2000.0,
        views: Count = 8,
        clip: str = "",
        style_source: str = "a corrupted photo",
        style_target: str = "a photo",
        content_layer: str = "",
        ensemble: Ensemble = "entropy",
        skip: float | None = None,
        copies: Count = 1,
        vote: Vote = "mean",
        cache: str = "",
        rows: Count = 64,
    ) -> None:
        if entropy and predictor.kind.dense:
            raise UsageError(f"views of a map do not lie on each other: {predictor.task} needs entropy=0")
        network = frozen_copy(predictor)
        terms: list[tuple[float, Energy]] = [(mse, mean_square)] if mse else []
        if entropy:
            side = predictor.size if isinstance(predictor.size, int) else max(predictor.size or (1,))
            check_memory(f"{views:,} views of {side} pixels a side", 12 * views * side**2, "give fewer views")
            terms.append((entropy, MarginalEntropy(network, views)))
        if content:
            terms.append((content, PatchContrast(network, content_layer)))
        if style:
            if not clip:
                raise UsageError("style needs clip, the name of a CLIP model: hf:openai/clip-vit-large-patch14")
            texts = {"source": [style_source], "target": [style_target]}
            terms.append((style, StyleDirection(frozen_copy(load_predictor(clip, labels=texts)).to(prior.device))))
        if not terms:
            raise UsageError("gda needs a weight above 0: entropy, style, content or mse")
        settings = {
            "form": form,
            "scaled": scaled,
            "mixed": mixed,
            "weights": [entropy, style, content, mse],
            "views": views,
            "style": [clip, style_source, style_target],
            "content_layer": content_layer,
            "predictor": fingerprint(predictor),
        }
        route = Route(start, steps, solver, eta)
        guide = Guide(terms, form, mixed=mixed, scaled=scaled)
        purifier = Purifier(frozen_view(prior), route, guide, settings, cache_at(cache), rows)
        source = Source(predictor)
        super().__init__(source, source, predictor, purifier, ensemble, skip, copies, vote)


PURIFIERS: dict[str, Any] = {"diffpure": DiffPure, "dda": DDA, "gda": GDA}  # that make images without any answer
ANSWERING = frozenset(
    {"ensemble", "skip", "copies", "vote", "cache", "rows"}
)  # options that do not change what a purified image is


def unused_predictor() -> Predictor:
    """In the place of the predictor, where only the purified images are wanted and no guide looks through it."""
    return Predictor(nn.Identity(), ())


def purifier_of(alignment: Alignment, predictor: Predictor, prior: Prior, **kept: Any) -> Purifier:
    """The purification that a folder of `diffcern align` was made with; kept: options of `ANSWERING`.

    Raises DiffcernError for a method or options that do not exist: its align.json is damaged, or of another version.
    """
    if alignment.method not in PURIFIERS:
        raise DiffcernError(f"{FILE} names the method {alignment.method!r}, none of {', '.join(PURIFIERS)}: restore it")
    try:
        options = checked(PURIFIERS[alignment.method], alignment.method, {**alignment.options, **kept})
    except UsageError as error:
        raise DiffcernError(f"{FILE}: {error}") from error
    purifier: Purifier = PURIFIERS[alignment.method](predictor, prior, **options).purifier
    return purifier


def cache_at(folder: str) -> TensorCache | None:
    """The cache in a folder; None for ""."""
    return TensorCache(Path(folder).expanduser()) if folder else None
