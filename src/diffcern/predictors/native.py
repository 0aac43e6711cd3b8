"""Small networks trained by `diffcern train predictor`, saved as `predictor.json` and `model.safetensors`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from diffcern.configs import FORBID, Depth, Mean, Names, Side, Std, Width, read_config
from diffcern.errors import DiffcernError, UsageError
from diffcern.files import check_files, reading, write_whole
from diffcern.kinds import KINDS, TaskName
from diffcern.predictors.base import Predictor
from diffcern.predictors.blocks import ResidualBlock
from diffcern.predictors.timm_models import timm_architecture
from diffcern.predictors.unet import Metres, SmallUNet
from diffcern.weights import check_shapes, read_weights, write_weights

TRAINS = "`diffcern train predictor` writes such a file"
FILES = ("predictor.json", "model.safetensors")


@dataclass(frozen=True)
class NativePredictorConfig:
    """What `predictor.json` holds.

    architecture: "small-resnet" or "timm:NAME" (built without its weights) for classes, "small-unet" for maps.
    image_size: a side, or (height, width). class_names: of images or pixels; none for depth.
    """

    __pydantic_config__ = FORBID

    architecture: str
    image_size: Side | tuple[Side, Side]
    class_names: Names
    mean: Mean
    std: Std
    width: Width = 16
    depth: Depth = 2
    task: TaskName = "classification"


class SmallResNet(nn.Sequential):
    """A wide ResNet for images of 16 to 64 pixels: three stages of `depth` blocks, widths w, 2w, 4w."""

    def __init__(self, num_classes: int, width: int = 16, depth: int = 2) -> None:
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1, bias=False)]
        channels = width
        for stage in range(3):
            for block in range(depth):
                outputs = width * 2**stage
                layers.append(ResidualBlock(channels, outputs, 2 if stage > 0 and block == 0 else 1))
                channels = outputs
        layers += [nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        super().__init__(*layers, nn.Linear(channels, num_classes))


def native_predictor(config: NativePredictorConfig) -> Predictor:
    """A new predictor with random weights. Raises UsageError for an architecture that does not exist."""
    kind = KINDS[config.task]
    size = config.image_size if isinstance(config.image_size, int) else (config.image_size[0], config.image_size[1])
    count = len(config.class_names) if kind.classes else 1
    if kind.dense and config.architecture == "small-unet":
        model: nn.Module = SmallUNet(count, config.width, config.depth)
    elif not kind.dense and config.architecture == "small-resnet":
        model = SmallResNet(count, config.width, config.depth)
    elif not kind.dense and config.architecture.startswith("timm:"):
        if not isinstance(size, int):
            raise UsageError(f"{config.architecture} is trained on squares: give one side")
        model = timm_architecture(config.architecture.removeprefix("timm:"), count, size)
    else:
        fitting = "'small-unet'" if kind.dense else "'small-resnet' or 'timm:NAME'"
        raise UsageError(f"the architecture for {config.task} is {fitting}, not {config.architecture!r}")
    if not kind.classes:
        model = Metres(model)
    return Predictor(
        model, config.class_names, size=size, mean=config.mean, std=config.std, task=config.task, metric=True
    )


def save_predictor(
    predictor: Predictor, config: NativePredictorConfig, folder: Path, dtype: torch.dtype = torch.float16
) -> None:
    """Writes `predictor.json` and `model.safetensors`; floating-point weights in `dtype`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(predictor.model.state_dict(), folder / "model.safetensors", dtype)
    write_whole(folder / "predictor.json", (json.dumps(asdict(config), indent=1) + "\n").encode())


def native_config(folder: Path) -> NativePredictorConfig:
    """The `predictor.json` of such a folder. Raises DiffcernError naming what is wrong."""
    check_files("predictor", folder, FILES)
    path = folder / "predictor.json"
    config: NativePredictorConfig = read_config(path, NativePredictorConfig, TRAINS)
    if KINDS[config.task].classes != bool(config.class_names):
        raise DiffcernError(f"cannot read {path}: class_names are of images or pixels, and of depth there are none")
    return config


def read_predictor(folder: Path) -> Predictor:
    """Reads such a folder, weights in fp32. Raises DiffcernError naming what is wrong."""
    config = native_config(folder)
    with reading(folder / "predictor.json", TRAINS):
        if not config.architecture.startswith("timm:"):  # some of which cannot be built without memory
            check_shapes(lambda: native_predictor(config).model, folder / "model.safetensors", "its predictor.json")
        predictor = native_predictor(config)
    read_weights(predictor.model, folder / "model.safetensors", "its predictor.json")
    return predictor.float()
