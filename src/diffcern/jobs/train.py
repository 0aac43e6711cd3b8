"""Models trained: priors, predictors and what reads captions or questions. Each goes on from its checkpoint."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass as plain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic.dataclasses import dataclass

from diffcern.errors import UsageError
from diffcern.fields import ARGUMENT, AllowPickle, ClassNames, Device, Spelling, help_of
from diffcern.jobs.base import CHECKED, Events, Job, Silent
from diffcern.train.recipes import (
    AnswererRecipe,
    ClipRecipe,
    MaeRecipe,
    PredictorRecipe,
    PriorRecipe,
    Regime,
    TextPriorRecipe,
)

if TYPE_CHECKING:
    from torch import nn

    from diffcern.data import Dataset
    from diffcern.train.loop import Outcome

Labelled = Annotated[
    str, help_of("labelled images: parquet:PATH, imagefolder:PATH, hf:..., embedded:digits/train"), ARGUMENT
]
Captions = Annotated[
    str,
    help_of("images with captions: FILE.parquet with columns image and caption, embedded:scenes/train"),
    ARGUMENT,
]
Questions = Annotated[
    str,
    help_of("embedded:scenes/train, or questions:FILE.parquet with columns image, question, answer"),
    ARGUMENT,
]
Bfloat = Annotated[bool, help_of("autocast the network to bfloat16"), Spelling(("--bf16/--fp32",))]


@plain(frozen=True)
class Trained:
    """How far a training came. regime: of the phase that it stopped in. use: what to do with a finished model."""

    out: Path
    model: nn.Module
    outcome: Outcome
    regime: Regime
    use: str


def named_data(name: str, class_names: Sequence[str] | None, task: str = "") -> Dataset:
    """The data set `name`, its classes called class_names: for segmentation those of its masks."""
    from diffcern.run.truths import load_images

    return load_images(name, task, class_names)


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class Training(Job):
    """use: what a finished model is for, in words."""

    use: ClassVar[str]

    device: Device = "auto"
    bf16: Bfloat = False

    @abstractmethod
    def train(self, folder: Path, **how: Any) -> tuple[nn.Module, Outcome, Regime]:
        """The model, how far it came, and the regime of the phase that it stopped in. Raises as `carry_out`.

        how: device, autocast and report, as all functions of `train/` take them.
        """

    def carry_out(self, out: Path | None, *, overwrite: bool = False, events: Events = Silent()) -> Trained:
        """overwrite: has no meaning here. At Ctrl-C it returns with what there is, and its outcome says so."""
        from diffcern.devices import device_named

        if out is None:
            raise UsageError("a model is trained in a folder, where its checkpoint is: give out")
        device = device_named(self.device)
        with events.stages() as report:
            return Trained(out, *self.train(out, device=device, autocast=self.bf16, report=report), self.use)


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class TrainPrior(Training):
    """Train a small class-conditional diffusion prior (resumes when run again)."""

    command = "train prior"
    use = "samples.png shows what it draws"

    dataset: Labelled
    recipe: PriorRecipe = PriorRecipe()
    regime: Regime = Regime(2_000_000, 128, 1e-3)
    class_names: ClassNames = None

    def train(self, folder: Path, **how: Any) -> tuple[nn.Module, Outcome, Regime]:
        from diffcern.train.prior import train_prior

        data = named_data(self.dataset, self.class_names, self.recipe.maps)
        return *train_prior(data, self.recipe, self.regime, folder, **how), self.regime


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class TrainPredictor(Training):
    """Train a small classifier, segmenter or depth predictor (resumes when run again)."""

    command = "train predictor"
    use = "evaluate it with `diffcern bench`"

    dataset: Labelled
    recipe: PredictorRecipe = PredictorRecipe()
    regime: Regime = Regime(1_000_000, 128, 2e-3, 0.05)
    class_names: ClassNames = None

    def train(self, folder: Path, **how: Any) -> tuple[nn.Module, Outcome, Regime]:
        from diffcern.train.predictor import train_predictor

        data = named_data(self.dataset, self.class_names, self.recipe.task)
        return *train_predictor(data, self.recipe, self.regime, folder, **how), self.regime


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class TrainMae(Training):
    """Train a masked autoencoder, then a classifier on its frozen encoder, for ttt-mae (resumes when run again)."""

    command = "train mae"
    use = "adapt it with --method ttt-mae"

    dataset: Labelled
    recipe: MaeRecipe = MaeRecipe()
    regime: Regime = Regime(2_000_000, 128, 1e-3, 0.05)
    class_names: ClassNames = None

    def train(self, folder: Path, **how: Any) -> tuple[nn.Module, Outcome, Regime]:
        from diffcern.train.mae import train_mae

        data = named_data(self.dataset, self.class_names)
        return train_mae(data, self.recipe, self.regime, folder, **how)


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class TrainTextPrior(Training):
    """Train a small prior that reads captions, with its text encoder (resumes when run again)."""

    command = "train text-prior"
    use = "samples.png shows one row per caption of samples.txt"

    dataset: Captions
    recipe: TextPriorRecipe = TextPriorRecipe()
    regime: Regime = Regime(400_000, 64, 1e-3)

    def train(self, folder: Path, **how: Any) -> tuple[nn.Module, Outcome, Regime]:
        from diffcern.train.captions import load_captioned
        from diffcern.train.text_prior import train_text_prior

        _, networks, outcome = train_text_prior(load_captioned(self.dataset), self.recipe, self.regime, folder, **how)
        return networks, outcome, self.regime


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class TrainClip(Training):
    """Train a small CLIP, the contrastive baseline of matching (resumes when run again)."""

    command = "train clip"
    use = "match with it: `diffcern match PAIRS --predictor FOLDER`"

    dataset: Captions
    recipe: ClipRecipe = ClipRecipe()
    regime: Regime = Regime(2_000_000, 256, 1e-3, 0.05, ema_decay=0.999)

    def train(self, folder: Path, **how: Any) -> tuple[nn.Module, Outcome, Regime]:
        from diffcern.train.captions import load_captioned
        from diffcern.train.clip import train_clip

        return *train_clip(load_captioned(self.dataset), self.recipe, self.regime, folder, **how), self.regime


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class TrainAnswerer(Training):
    """Train a small LLaVA that answers questions about images (resumes when run again)."""

    command = "train answerer"
    use = "ask it: `diffcern answer QUESTIONS --predictor FOLDER`"

    dataset: Questions
    recipe: AnswererRecipe = AnswererRecipe()
    regime: Regime = Regime(200_000, 32, 1e-3, 0.05, ema_decay=0.999)
    allow_pickle: AllowPickle = False

    def idle(self) -> tuple[frozenset[str], str]:
        if not self.recipe.vision:
            return frozenset(), ""
        return frozenset(("image_size", "patch", "width", "depth", "heads")), "the CLIP's own with --vision"

    def train(self, folder: Path, **how: Any) -> tuple[nn.Module, Outcome, Regime]:
        from diffcern.train.asked import load_asked
        from diffcern.train.question_answering import train_answerer

        how |= {"allow_pickle": self.allow_pickle}
        return *train_answerer(load_asked(self.dataset), self.recipe, self.regime, folder, **how), self.regime
