"""Canonical views: the predictor is shown the transformation of the image that the prior finds likeliest.

    g* = argmax_g  log p(g(x)) + log |det J_g|        answer = f(g*(x)), maps brought back by g*^-1

FOCAL (arXiv 2507.10375) without the Jacobian's term prefers the flattest picture. No weight moves, one image is enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from diffcern import clean_gains
from diffcern.canonical import Search, View, canonical_view
from diffcern.errors import UsageError
from diffcern.evidence import check_pixels
from diffcern.familiarity import DRAWS, asked_strangeness, threshold
from diffcern.fingerprints import digest
from diffcern.kinds import KINDS
from diffcern.methods.base import Count, Method, State, frozen_view
from diffcern.methods.building import build
from diffcern.methods.corrections import RandomViews
from diffcern.methods.diffusion_classifier import DiffusionClassifier
from diffcern.methods.diffusion_tta import DiffusionTTA
from diffcern.methods.dusa import Dusa
from diffcern.methods.memo import Memo
from diffcern.methods.options import over
from diffcern.methods.purification import DDA, GDA, DiffPure
from diffcern.methods.source import Source
from diffcern.predictors import Predictor
from diffcern.priors import Prior
from diffcern.priors.clean import read_clean_gains
from diffcern.purifier import Route
from diffcern.sampling import purify
from diffcern.search import USUAL
from diffcern.solvers import ONE_SHOT
from diffcern.tasks import Task
from diffcern.tasks.base import resized
from diffcern.transformations import IDENTITY, Transformation
from diffcern.types import Cost, Inputs, Prediction, concatenate
from diffcern.watching import Interim, on_the_way

Then = Literal[
    "source", "memo", "random-views", "diffusion-tta", "diffusion-classifier", "dusa", "diffpure", "dda", "gda"
]
THEN: dict[str, type[Method]] = {  # those that answer for one image, and need no folder
    "source": Source,
    "memo": Memo,
    "random-views": RandomViews,
    "diffusion-tta": DiffusionTTA,
    "diffusion-classifier": DiffusionClassifier,
    "dusa": Dusa,
    "diffpure": DiffPure,
    "dda": DDA,
    "gda": GDA,
}
OF_PHOTOS: dict[str, Any] = {"views": ("colour", "haze"), "budget": 160, "inpaint": False}


@dataclass(frozen=True)
class CanonicalState:
    """known: the view of the image before, where a stream goes on; then: the state of the method on the view."""

    known: View | None
    then: State


class Canonical(Method):
    """views: families of transformations, in order (`views.FAMILIES`). budget ... jacobian: of the search, see
    `canonical.Search`. denoise: where the prior finds noise in the view (`noise_levels.py`), what it sees behind that
    takes its place, for one evaluation. inpaint: where a flat patch or specks surely hide a part of the view, the prior
    paints it; where an uneven dark ground does, it becomes black, and the rest is stretched (`hidden.py`). then: the
    method that answers on the view, with its options of the preset `then_preset`, but for `then_options`. familiar: a
    share (0.99, say); where the view looks as those of the clean images do, given the predictor's answer, that answer
    stays, for 16 evaluations. gains: the folder of a clean_gains.json for margins, where that is not the prior's own.

    Online the view of the image before is asked about first, for a camera does not change between frames: where none
    of its neighbours is likelier it stays, for a part of what a search takes. Needs a prior
    of pixels (an autoencoder's latents have no likelihood of images), which is asked without a condition.
    """

    tasks = tuple(KINDS)
    told = False
    small: ClassVar[Mapping[str, Any]] = {"then_preset": "small", "denoise": True, "inpaint": True, "budget": 180}
    small_for: ClassVar[Mapping[str, Mapping[str, Any]]] = {"segmentation": OF_PHOTOS, "depth": OF_PHOTOS}
    added: ClassVar[Mapping[str, Any]] = {"then_options": None, "inpaint": False}

    def __init__(
        self,
        predictor: Predictor,
        prior: Prior,
        task: Task,
        *,
        views: tuple[str, ...] = USUAL,
        budget: Count = 120,
        draws: Count = 16,
        low: float = 0.1,
        margin: float | None = None,
        z: float = 1.5,
        rounds: int = 0,
        jacobian: bool = True,
        denoise: bool = False,
        inpaint: bool = False,
        then: Then = "source",
        then_preset: Literal["paper", "small"] = "paper",
        familiar: float | None = None,
        then_options: dict[str, Any] | None = None,
        gains: str = "",
    ) -> None:
        self.denoise = denoise
        self.search = Search(tuple(views), budget, draws, low, margin, z, rounds, jacobian, inpaint)
        self.predictor, self.prior, self.task = frozen_view(predictor), frozen_view(prior), task
        check_pixels(prior)
        self.gains = read_clean_gains(Path(gains).expanduser()) if gains else prior.clean_gains
        if gains and not self.gains:
            raise UsageError(f"{gains} holds no clean_gains.json: run `diffcern calibrate views --keep {gains}`")
        if margin is None and self.gains:
            self.loaded = digest({name: clean_gains.margin(self.gains, name) for name in self.search.names})
        if familiar is not None:
            task.check(prior)
        inner = THEN[then]
        options = inner.small_options(task.name) if then_preset == "small" else {}
        options = over(options, then_options or {}, f"then = {then} in the preset {then_preset!r}")
        if inner.reads_batch(options):
            raise UsageError(f"then = {then} answers on one image: leave what reads a batch out of then_options")
        self.then = build(inner, f"then = {then}", THEN, predictor, prior, task, options)
        self.loaded += self.then.loaded
        self.source = Source(predictor)
        self.clean_error = None if familiar is None else threshold(prior, familiar)
        self.evaluations = budget + denoise + self.then.evaluations + DRAWS * (familiar is not None)

    def init(self) -> CanonicalState:
        return CanonicalState(None, self.then.init())

    def step(self, state: CanonicalState, inputs: Inputs, seed: int) -> tuple[Prediction, CanonicalState]:
        answers = []
        for number in range(len(inputs)):
            one = inputs.at([number])
            image = one.images[0][None]
            with torch.no_grad():
                how: dict[str, Any] = {"looked_at": self.predictor.view, "seed": seed, "known": state.known}
                how["gains"] = self.gains
                view = canonical_view(self.prior, image, one.ids[0], self.search, **how)
            chosen = view.transformation
            seen = chosen.apply(image).clamp(0, 1) if chosen != IDENTITY else image
            denoised = bool(self.denoise and view.left)
            if denoised or view.hidden:
                seen = self._cleaned(seen, view, one.ids, seed)
            if number == 0:
                on_the_way(partial(Interim, image=seen[0]))
            strange, asked = self._strange(seen, one.ids, seed)
            if strange:
                answer, after = self.then.step(state.then, Inputs(seen, one.ids), seed)
            else:
                answer, after = self.source.step(None, Inputs(seen, one.ids), seed)[0], state.then
            state = CanonicalState(view, after)
            costs = [Cost(view.evaluations + denoised + asked) + cost for cost in answer.costs]
            notes = [{**(answer.notes[0] if answer.notes else {}), **_numbers(view)}]
            answers.append(Prediction(self._back(chosen, answer.output), costs, answer.trace or [[]], notes))
        return concatenate(answers), state

    @torch.no_grad()
    def _cleaned(self, seen: Tensor, view: View, ids: Sequence[str], seed: int) -> Tensor:
        """The view with what the prior paints where it is hidden; where it is noisy, what the prior sees in it, taken
        as x_t of the level whose noise is its own."""
        hidden, shown = view.hidden, torch.stack([*self.predictor.view(seen)])
        if hidden:
            shown = hidden.lifted(shown)
        latent = self.prior.latents(shown)
        if hidden:
            latent = torch.where(hidden.mask.hidden > 0, hidden.latent, latent)
        route = Route("auto", 1, ONE_SHOT).from_noise(self.prior, view.left) if self.denoise else None
        if route:
            clean = self.predictor.of_view(self.prior.decode(purify(self.prior, latent, ids, seed=seed, **vars(route))))
            return resized(clean, (seen.shape[-2], seen.shape[-1])) if self.task.kind.dense else clean
        if not hidden:
            return seen
        shown = self.predictor.of_view(shown).to(latent.device)
        painted, mask = (resized(each, shown.shape[-2:]) for each in (self.prior.decode(latent), hidden.mask.hidden))
        return torch.lerp(shown, painted, mask)

    def _strange(self, seen: Tensor, ids: Sequence[str], seed: int) -> tuple[bool, int]:
        """Whether the view, as the predictor takes it, is unlike clean images; the evaluations of asking."""
        if self.clean_error is None:
            return True, 0
        with torch.no_grad():
            condition = self.task.condition(self.predictor(seen))
            latents = self.prior.latents(self.predictor.view(seen))
            return bool(asked_strangeness(self.prior, latents, condition, ids, seed) > self.clean_error), DRAWS

    def _back(self, view: Transformation, output: Tensor) -> Tensor:
        """The answer to the image from that to its view."""
        if not self.task.kind.dense or not view.moves:
            return output
        return view.back(output) if self.task.kind.classes else view.back(output[:, None])[:, 0]


def _numbers(found: View) -> dict[str, float]:
    """What the view is, for a record: mean gain and offset, the turn in degrees, and by how much it is likelier."""
    view = found.transformation
    numbers = {"view_gain": sum(view.gain) / 3, "view_offset": sum(view.offset) / 3, "view_turn": view.turn}
    if view.veil:
        numbers["view_veil"] = sum(view.veil) / len(view.veil)
    if found.hidden:
        numbers |= {"view_hidden": found.hidden.share, "view_hidden_nats": found.hidden_nats}
        numbers |= {"view_ground": found.hidden.mask.ground} if found.hidden.mask.ground else {}
    return {"view_nats": found.nats, "view_nats_standard_error": found.standard_error, **numbers}
