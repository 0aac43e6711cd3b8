"""The models of a run: loaded in one place, in the precision asked for, and told apart by fingerprints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from diffcern.errors import UsageError
from diffcern.fingerprints import fingerprint
from diffcern.kinds import KINDS
from diffcern.labels import Wanted, readable
from diffcern.methods import build_method
from diffcern.methods.base import Method
from diffcern.predictors import Predictor, load_predictor
from diffcern.predictors.clip import ZeroShot
from diffcern.priors import Prior, TextPrior, load_prior
from diffcern.priors.blocks import compile_regions
from diffcern.run.spec import Models
from diffcern.tasks import Classification, Task, task_of


@dataclass(frozen=True)
class LoadedModels:
    """The models on one device, None where a run has none, and the task that joins them."""

    predictor: Predictor | None
    prior: Prior | None
    task: Task
    device: torch.device

    def method(self, name: str, options: Mapping[str, Any]) -> Method:
        """A method over these models; raises as `build_method` does, UsageError where no labels are known, and
        DiffcernError where the prior can have none."""
        if not self.task.kind.dense and not self.task.class_names:
            if self.prior is not None and not isinstance(self.prior, TextPrior):
                self.task.check(self.prior)  # says what it is
            raise UsageError("the prior reads any text: name what to tell apart, --labels cat,dog or --labels FILE")
        return build_method(name, self.predictor, self.prior, self.task, options)

    @property
    def reads_text(self) -> bool:
        """Whether either model does, so that the sentences around a label matter."""
        return isinstance(self.prior, TextPrior) or isinstance(getattr(self.predictor, "model", None), ZeroShot)

    def fingerprints(self) -> dict[str, str]:
        """The `fingerprint` of each model that there is, by "predictor" and "prior"."""
        models = {"predictor": self.predictor, "prior": self.prior}
        return {name: fingerprint(model) for name, model in models.items() if model is not None}


def load_models(models: Models, device: torch.device, labels: Sequence[str] = ()) -> LoadedModels:
    """Loads what `models` names: the predictor in fp32, the prior's network in `models.dtype`.

    labels: the classes to tell apart where `models` names none; without any, all of the predictor's, else of the
    prior's. Raises UsageError for names that do not exist or where there is none, DiffcernError for a model that
    cannot be read or whose classes the prior lacks.
    """
    given: Wanted | None = models.labels or tuple(labels) or None
    names = None if given is None else readable(given)
    predictor = prior = None
    if models.predictor is not None:
        predictor = load_predictor(
            models.predictor,
            labels=names,
            templates=models.templates if names else None,
            allow_pickle=models.allow_pickle,
            trust_remote_code=models.trust_remote_code,
        ).to(device)
        if predictor.task != models.task:
            raise UsageError(
                f"{models.predictor} is for {predictor.task}, and this run for {models.task}: adapt and align take "
                "--task, a specification task under [models], other commands take classifiers only"
            )
        names = names or predictor.class_names or None
    if models.prior is not None:
        told = None if KINDS[models.task].dense else names  # maps are no prompts
        prior = load_prior(
            models.prior,
            _dtype(models.dtype, device),
            device=device,
            labels=told,
            templates=models.templates if told else None,
            allow_pickle=models.allow_pickle,
        )
        if not isinstance(prior, TextPrior):  # whose classes are the labels themselves
            prior.class_names = renamed(prior.class_names, models.class_map)
        if prior.maps is not None:
            prior.maps = replace(prior.maps, names=renamed(prior.maps.names, models.class_map))
        if models.compile:
            compile_regions(prior.denoiser)
        names = names or prior.class_names
    if predictor is not None:
        return LoadedModels(predictor, prior, task_of(predictor, prior), device)
    if names is None:
        raise UsageError("no model is named: give a predictor, a prior or both")
    known = prior.class_names if prior and prior.class_names else list(names)
    return LoadedModels(predictor, prior, Classification(list(names), known), device)


def renamed(names: Sequence[str], class_map: Mapping[str, str] | None) -> tuple[str, ...]:
    """The names, those that the map holds under their other name."""
    return tuple((class_map or {}).get(name, name) for name in names)


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return getattr(torch, name)
