"""What is trained, and for how long: frozen values, which the commands of `diffcern train` make their options of.

A checkpoint keeps them, and training goes on only under the same ones. Knows nothing about how it is done, and imports
no torch.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from diffcern.errors import UsageError
from diffcern.fields import Spelling, help_of
from diffcern.given import parse_size
from diffcern.kinds import TaskName


def number(text: str, **bounds: Any) -> Any:
    """`help_of` a finite number."""
    return help_of(text, allow_inf_nan=False, **bounds)


ImageSize = Annotated[int, help_of("the side of images, in pixels", ge=8)]
Channels = Annotated[Literal[1, 3], help_of("one channel, or three"), Spelling(("--grey/--colour",), values=(1, 3))]
Augmentation = Annotated[str, help_of("none, or a list of flip, crop, affine, light"), Spelling(("--augment",))]
Objective = Annotated[str, help_of("what the network estimates: x0, v, eps or flow")]
Weighting = Annotated[str, help_of("of the loss over t (default: the objective's own)")]
Width = Annotated[int, help_of("channels of the network", ge=8)]
Layers = Annotated[int, help_of("layers of the network", ge=1)]
Heads = Annotated[int, help_of("of attention", ge=1)]
Patch = Annotated[int, help_of("side of a token, in pixels", ge=1)]
TextWidth = Annotated[int, help_of("of what reads the text", ge=8)]
TextLayers = Annotated[int, help_of("of what reads the text", ge=1)]
Dropout = Annotated[float, number("share of conditions that are left out", ge=0, le=1)]


@dataclass(frozen=True)
class Regime:
    """How long and how fast to train."""

    images: Annotated[int, help_of("images to see in all", ge=1)]
    batch_size: Annotated[int, help_of("images in a step", ge=1)]
    learning_rate: Annotated[float, number("the highest, under a cosine", ge=0)]
    weight_decay: Annotated[float, number("of AdamW", ge=0)] = 0.01
    warmup: float = 0.02  # fraction of the steps
    ema_decay: Annotated[float, number("of the averaged weights, which are saved", ge=0, le=0.999999)] = 0.9999
    clip: float = 1.0  # gradient norm
    minutes: Annotated[float, help_of("stop after this time; run again to go on", allow_inf_nan=True, ge=0)] = math.inf
    checkpoint_seconds: float = 120.0
    seed: Annotated[int, help_of("every random number is keyed by it")] = 0

    def __post_init__(self) -> None:
        """Raises UsageError for NaN, infinity but in minutes, minutes below 0, and a seed that torch can't hold."""
        rates = {"learning rate": self.learning_rate, "weight decay": self.weight_decay, "EMA decay": self.ema_decay}
        odd = [f"{name} {value}" for name, value in rates.items() if not 0 <= value < math.inf]
        if odd or not self.minutes >= 0:
            raise UsageError(
                f"rates are finite and at least 0, minutes a number from 0, not {', '.join(odd) or self.minutes}"
            )
        if not -(2**63) <= self.seed < 2**63:
            raise UsageError(f"a seed is within 2^63, not {self.seed}")

    @property
    def steps(self) -> int:
        return max(1, math.ceil(self.images / self.batch_size))


@dataclass(frozen=True)
class PriorRecipe:
    """A native prior. The defaults suit 16 to 32 pixel images on a CPU."""

    architecture: Annotated[str, help_of("dit or unet")] = "dit"
    objective: Objective = "x0"
    weighting: Weighting = ""
    image_size: ImageSize = 32
    channels: Channels = 3
    width: Width = 192
    depth: Layers = 6
    heads: Heads = 3
    patch: Patch = 4
    augmentation: Augmentation = "none"
    maps: Annotated[str, help_of("segmentation or depth: condition on the data's maps, not on labels")] = ""
    label_dropout: Dropout = 0.1
    soft_labels: Annotated[float, number("share of labels that become mixtures, see `soften`", ge=0, le=1)] = 0.5
    init: Annotated[str, help_of("folder of a trained prior of the same shape, to start from")] = ""
    times: Annotated[str, help_of("how noise levels are drawn: uniform or logit-normal")] = "uniform"
    rivals: Annotated[float, number("share of images denoised under a wrong class too", ge=0, le=1)] = 0.0
    rival_weight: Annotated[float, number("of that term in the loss", ge=0)] = 1e-3
    rival_temper: Annotated[float, number("b of its softplus(-b LLR)", gt=0)] = 1.0
    encoder: Annotated[str, help_of("a predictor whose features are denoised instead of pixels (RAE)")] = ""
    align: Annotated[str, help_of("a predictor whose features an early block should find (REPA)")] = ""
    align_block: Annotated[int, help_of("which block, from 1", ge=1)] = 3
    align_weight: Annotated[float, number("of that term in the loss", ge=0)] = 0.5


@dataclass(frozen=True)
class TextPriorRecipe:
    """A prior that reads captions. The defaults suit 32 pixel images on a CPU: 2.4 million parameters."""

    objective: Objective = "x0"
    weighting: Weighting = ""
    image_size: ImageSize = 32
    channels: Channels = 3
    width: Width = 128
    depth: Layers = 6
    heads: Heads = 4
    patch: Patch = 4
    text_width: TextWidth = 128
    text_depth: TextLayers = 3
    text_heads: Heads = 4
    augmentation: Annotated[str, help_of("none, or light"), Spelling(("--augment",))] = "none"
    caption_dropout: Dropout = 0.1


@dataclass(frozen=True)
class PredictorRecipe:
    """A small predictor of any task; architecture: see `NativePredictorConfig`."""

    architecture: Annotated[str, help_of("small-resnet or timm:NAME; small-unet for maps (default: by the task)")] = ""
    image_size: Annotated[
        int | tuple[int, int],
        BeforeValidator(lambda value: parse_size(value) if isinstance(value, str) else value),
        help_of("a side, or HEIGHTxWIDTH"),
        Spelling(text=str),
    ] = 32
    width: Annotated[int, help_of("channels of the network", ge=4)] = 16
    depth: Layers = 2
    augmentation: Augmentation = "none"
    label_smoothing: Annotated[float, number("share of the loss for all classes alike", ge=0, le=0.9)] = 0.0
    task: Annotated[TaskName, help_of("classification, segmentation or depth")] = "classification"


@dataclass(frozen=True)
class MaeRecipe:
    """A masked autoencoder and a head on it: sizes as in `MaeConfig`."""

    image_size: ImageSize = 32
    width: Width = 96
    depth: Layers = 6
    heads: Heads = 3
    patch: Patch = 4
    decoder_depth: Layers = 2
    head_depth: Annotated[int, help_of("0: a linear probe", ge=0)] = 1
    augmentation: Augmentation = "none"
    head_images: Annotated[int, help_of("images for the head to see in all, afterwards", ge=1)] = 500_000


@dataclass(frozen=True)
class ClipRecipe:
    """A CLIP. The defaults suit 32 pixel images on a CPU: just under 1 million parameters."""

    image_size: ImageSize = 32
    patch: Patch = 4
    width: Width = 96
    depth: Layers = 3
    heads: Heads = 3
    text_width: TextWidth = 128
    text_depth: TextLayers = 3
    text_heads: Heads = 4
    projection: Annotated[int, help_of("length of the features", ge=2)] = 64


@dataclass(frozen=True)
class AnswererRecipe:
    """A small LLaVA. The defaults suit images of 64 pixels on a CPU: 1 million parameters.

    vision: a CLIP whose image tower is taken as it is, see `image_tower`; its sizes stand in for image_size to heads.
    """

    image_size: ImageSize = 64
    patch: Patch = 8
    width: Width = 96
    depth: Layers = 3
    heads: Heads = 3
    text_width: TextWidth = 128
    text_depth: TextLayers = 3
    text_heads: Heads = 4
    questions: Annotated[int, help_of("about an image in one step, where so many are known", ge=1)] = 4
    vision: Annotated[
        str,
        help_of("take a CLIP's image tower but for its last layer, untrained: embedded:NAME, hf:OWNER/NAME, a folder"),
    ] = ""


def noted(recipe: Any, *later: str) -> dict[str, Any]:
    """A recipe as a checkpoint notes it: options that came later only where they are used, so that older ones go on."""
    plain = type(recipe)()
    return {name: value for name, value in asdict(recipe).items() if name not in later or value != getattr(plain, name)}
