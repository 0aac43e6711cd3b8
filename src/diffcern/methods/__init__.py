"""The methods by name, and how one is built from options."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from diffcern.errors import UsageError, unknown
from diffcern.methods.base import Method
from diffcern.methods.batch_norm import BatchNormAdapt
from diffcern.methods.building import build, needed
from diffcern.methods.canonical import Canonical
from diffcern.methods.corrections import AutoContrast, GreyWorld, RandomViews
from diffcern.methods.cotta import CoTTA
from diffcern.methods.deyo import DeYO
from diffcern.methods.diffusion_classifier import DiffusionClassifier
from diffcern.methods.diffusion_tta import DiffusionTTA
from diffcern.methods.dusa import Dusa
from diffcern.methods.eata import EATA, ETA
from diffcern.methods.foa import FOA
from diffcern.methods.memo import Memo
from diffcern.methods.options import checked
from diffcern.methods.prototypes import Prototypes
from diffcern.methods.purification import DDA, GDA, DiffPure
from diffcern.methods.roid import ROID
from diffcern.methods.sar import SAR
from diffcern.methods.sda import SDA, SDAWithTTA
from diffcern.methods.source import Source
from diffcern.methods.tent import Tent
from diffcern.methods.tpt import TPT
from diffcern.methods.ttt_mae import TTTMAE
from diffcern.plugins import PATH, announced, plugin
from diffcern.predictors.base import Predictor
from diffcern.priors.base import Prior
from diffcern.tasks import Task

METHODS: dict[str, type[Method]] = {
    "source": Source,
    "bn-adapt": BatchNormAdapt,
    "tent": Tent,
    "eta": ETA,
    "eata": EATA,
    "sar": SAR,
    "deyo": DeYO,
    "roid": ROID,
    "cotta": CoTTA,
    "foa": FOA,
    "memo": Memo,
    "ttt-mae": TTTMAE,
    "tpt": TPT,
    "auto-contrast": AutoContrast,
    "grey-world": GreyWorld,
    "random-views": RandomViews,
    "diffusion-tta": DiffusionTTA,
    "diffusion-classifier": DiffusionClassifier,
    "prototypes": Prototypes,
    "canonical": Canonical,
    "dusa": Dusa,
    "diffpure": DiffPure,
    "dda": DDA,
    "gda": GDA,
    "sda": SDA,
    "sda-tta": SDAWithTTA,
}


def method_class(name: str) -> type[Method]:
    """The class for a name in METHODS, one that a package announces, or "my_package.my_module:MyMethod".

    Raises UsageError for a name that does not exist, a module that cannot be imported, and what is no method.
    """
    if name in METHODS:
        return METHODS[name]
    found = plugin("methods", name)
    if found is None:
        raise unknown("method", name, [*METHODS, *announced("methods"), PATH])
    if not isinstance(found, type) or not all(callable(getattr(found, part, None)) for part in ("init", "step")):
        raise UsageError(f"{name} is no method: a method is a class with init and step, see docs/extend.md")
    return found if issubclass(found, Method) else _completed(found)  # type: ignore[arg-type]


@cache
def _completed(found: type) -> type[Method]:
    """The class with what `Method` declares, where it says nothing of it."""
    return type(found.__name__, (found, Method), {"__module__": found.__module__})


def needs(name: str, model: str) -> bool:
    """Whether the method cannot be built without that model: "predictor", "prior" or "task"."""
    return needed(method_class(name), model)


def reads_batch(name: str, options: Mapping[str, Any]) -> bool:
    """Whether the method reads statistics of a batch, as far as its options tell (its predictor may have none)."""
    return method_class(name).reads_batch(options)


def checked_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the method `name`, see `options.checked`."""
    return checked(method_class(name), name, options)


def build_method(
    name: str,
    predictor: Predictor | None,
    prior: Prior | None,
    task: Task | None,
    options: Mapping[str, Any],
) -> Method:
    """A method over the models it needs. Raises UsageError for unknown names or options, DiffcernError for a
    model that is missing, and for a prior that cannot be told what the method wants to tell it."""
    return build(method_class(name), name, METHODS, predictor, prior, task, options)
