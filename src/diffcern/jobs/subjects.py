"""What SDA is about, by task: which fields of an `Align` it has, what is loaded and drawn for it, and what learns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from diffcern.errors import UsageError
from diffcern.jobs.images import check_templates
from diffcern.jobs.train import named_data
from diffcern.kinds import QUESTION_ANSWERING
from diffcern.labels import vocabulary_of
from diffcern.methods.purification import PURIFIERS, unused_predictor
from diffcern.predictors import Predictor
from diffcern.predictors.question_answering import load_answerer
from diffcern.priors import Prior, TextPrior
from diffcern.run.models import LoadedModels, load_models, renamed
from diffcern.run.spec import parse_models
from diffcern.train.align import Learner, Material
from diffcern.train.finetune_answerer import AnswererLearner, Tuning
from diffcern.train.finetune_predictor import MAP_RECIPES, RECIPES, PredictorLearner, Recipe
from diffcern.train.materials.captions import CaptionMaterial, drawings_of
from diffcern.train.materials.classes import Classes
from diffcern.train.materials.maps import MapMaterial, choose_maps, kept_maps, telling

if TYPE_CHECKING:
    from diffcern.jobs.align import Align


@dataclass(frozen=True)
class Drawn:
    """learnt: what is fine-tuned, by `learner`. guide: what a guided purification looks through. material: of what
    images are made, for a folder that may hold it already. classes: the predictor's."""

    learnt: torch.nn.Module
    guide: Predictor
    generator: Prior
    prior: Prior
    learner: Learner
    material: Callable[[Path], Material]
    classes: tuple[str, ...] = ()


class Subject(ABC):
    """answering: what takes the options that concern answers, in words. task: in the sense of `preset_options`.
    methods: the purifications. Making one raises UsageError where what is to be generated is not said, or said as for
    another task."""

    answering: ClassVar[str] = "--method sda"
    methods: ClassVar[tuple[str, ...]] = tuple(PURIFIERS)

    def __init__(self, job: Align) -> None:
        self.job, self.task = job, job.task
        self.check()
        if job.method not in self.methods:
            raise UsageError(f"--method is one of {', '.join(self.methods)}, not {job.method!r}")
        self.recipe = self._recipe()

    @abstractmethod
    def check(self) -> None:
        """Raises UsageError for fields of other tasks, and for none of this one."""

    @abstractmethod
    def load(self, device: torch.device) -> Drawn:
        """Raises UsageError and DiffcernError for models that do not exist or fit."""

    @abstractmethod
    def _recipe(self) -> Any:
        """Of the fine-tuning, a dataclass."""

    def refuse(self, names: tuple[str, ...], why: str) -> None:
        """Raises UsageError where one of these fields is given."""
        if any(getattr(self.job, name) for name in names):
            raise UsageError(why)

    def changed(self, recipe: Any) -> Any:
        """The recipe with what the job says of it."""
        changes = {"epochs": self.job.epochs, "learning_rate": self.job.learning_rate}
        return replace(recipe, **{name: value for name, value in changes.items() if value is not None})


class OfPredictors(Subject):
    """recipes: by name, "small" where none is named."""

    recipes: ClassVar[Mapping[str, Recipe]]

    def _recipe(self) -> Recipe:
        name = self.job.recipe or "small"
        if name not in self.recipes:
            raise UsageError(f"--recipe is one of {', '.join(self.recipes)} for {self.task}, not {name!r}")
        recipe: Recipe = self.changed(self.recipes[name])
        return recipe

    def models(self, device: torch.device, **others: Any) -> tuple[LoadedModels, LoadedModels]:
        """Predictor and prior, and the generator as a prior; others: how that is loaded, where it is another one."""
        names = ("labels", "templates", "class_map", "trust_remote_code", "task")
        given = self.job.named(**{name: getattr(self.job, name) for name in names})
        models = load_models(parse_models({**given, "predictor": self.job.predictor, "prior": self.job.prior}), device)
        if self.job.generator == self.job.prior:
            return models, models
        classes = models.task.class_names if not models.task.kind.dense else ()
        return models, load_models(parse_models({**given, **others, "prior": self.job.generator}), device, classes)

    def drawn(self, models: LoadedModels, others: LoadedModels, material: Callable[[Path], Material]) -> Drawn:
        check_templates(self.job.templates, models, others)
        predictor, prior, generator = models.predictor, models.prior, others.prior
        assert predictor is not None  # they were named
        assert prior is not None
        assert generator is not None
        learner = PredictorLearner(predictor, self.job.predictor, self.recipe)
        return Drawn(predictor, predictor, generator, prior, learner, material, predictor.class_names)


class OfClasses(OfPredictors):
    """Images of every class that a classifier tells apart."""

    recipes = RECIPES

    def check(self) -> None:
        self.refuse(
            ("maps", "count", "class_names"),
            "--maps, --count and --class-names are for --task segmentation or depth: give --per-class",
        )
        self.refuse(("captions",), "--captions are for --task qa: give --per-class")
        if self.job.per_class is None:
            raise UsageError("how many images of each class? give --per-class")

    def load(self, device: torch.device) -> Drawn:
        models, others = self.models(device, task="classification")
        per_class, predictor = self.job.per_class or 1, models.predictor
        assert predictor is not None  # it was named
        names = predictor.class_names
        read = (
            vocabulary_of(self.job.labels or names, self.job.templates) if isinstance(others.prior, TextPrior) else None
        )
        prompts = read.sentences if read else ()
        return self.drawn(models, others, lambda out: Classes(names, per_class, prompts))


class OfMaps(OfPredictors):
    """Images of known masks or depths."""

    recipes = MAP_RECIPES

    def check(self) -> None:
        self.refuse(
            ("per_class",),
            f"--per-class is for classification: images for {self.task} are of maps, as many as --count",
        )
        if not self.job.maps or self.job.count is None:
            raise UsageError(f"images for {self.task} are generated of known maps: give --maps DATASET and --count")
        self.refuse(
            ("templates", "captions"),
            f"images for {self.task} are generated of maps and without words: leave --prompt and --captions out",
        )

    def load(self, device: torch.device) -> Drawn:
        models, others = self.models(device, labels=None)  # maps are told, and no classes
        assert models.predictor is not None  # they were named
        assert others.prior is not None
        telling(models.predictor, others.prior)  # do they fit? before maps are read
        predictor = models.predictor
        return self.drawn(models, others, lambda out: self.material(out, predictor))

    def material(self, out: Path, predictor: Predictor) -> MapMaterial:
        """The maps that the folder holds, else of the data set."""
        job = self.job
        names = ",".join(job.class_names or ())
        source = {"data": job.maps, "class_names": names, "class_map": job.class_map}
        maps = kept_maps(out, self.task, source, job.count or 0, job.seed)
        if maps is None:
            dataset = named_data(job.maps or "", job.class_names, self.task)
            shown = renamed(getattr(dataset, "mask_names", ()), job.class_map)
            maps = choose_maps(dataset, self.task, shown, predictor.class_names, job.count or 0, job.seed)
        return MapMaterial(maps, predictor, source)


class OfQuestions(Subject):
    """Images of captions, for a model that answers questions."""

    answering = "`diffcern answer --method sda`"
    methods = ("diffpure", "dda")

    def __init__(self, job: Align) -> None:
        super().__init__(job)
        self.task = QUESTION_ANSWERING

    def check(self) -> None:
        if self.job.count is None:
            raise UsageError("how many images? give --count")
        self.refuse(
            ("per_class", "maps", "class_names", "labels", "templates", "class_map", "recipe", "trust_remote_code"),
            "images for questions are generated of --captions, as many as --count: leave what is of other tasks out",
        )

    def _recipe(self) -> Tuning:
        tuning: Tuning = self.changed(Tuning())
        return tuning

    def load(self, device: torch.device) -> Drawn:
        job = self.job
        answerer = load_answerer(job.predictor, allow_pickle=job.allow_pickle).to(device)
        prior = load_models(parse_models(job.named(prior=job.prior)), device).prior
        generator = prior
        if job.generator != job.prior:
            generator = load_models(parse_models(job.named(prior=job.generator)), device).prior
        assert prior is not None  # they were named
        assert generator is not None
        if not isinstance(generator, TextPrior):
            raise UsageError(f"--generator {job.generator} does not read captions: give a text-to-image prior")
        learner = AnswererLearner(answerer, self.recipe)

        def material(out: Path) -> CaptionMaterial:
            return CaptionMaterial(drawings_of(job.captions or "embedded:scenes/train", job.count or 0, job.seed))

        return Drawn(answerer, unused_predictor(), generator, prior, learner, material)


SUBJECTS: dict[str, type[Subject]] = {
    "classification": OfClasses,
    "segmentation": OfMaps,
    "depth": OfMaps,
    "qa": OfQuestions,
}
