"""Small classifiers trained by `diffcern train predictor`, saved as `predictor.json` and `model.safetensors`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F

from diffcern.errors import UsageError
from diffcern.files import check_files, reading, write_whole
from diffcern.predictors.base import Predictor
from diffcern.predictors.timm_models import timm_architecture

FILES = ("predictor.json", "model.safetensors")


@dataclass(frozen=True)
class NativePredictorConfig:
    """What `predictor.json` holds. architecture: "small-resnet" or "timm:NAME" (built without its weights)."""

    architecture: str
    image_size: int
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    width: int = 16
    depth: int = 2


class ResidualBlock(nn.Module):
    """Pre-activation block with BatchNorm (Zagoruyko & Komodakis 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(x))
        skip = x if self.shortcut is None else self.shortcut(h)
        return skip + self.conv2(F.relu(self.norm2(self.conv1(h))))


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
    count = len(config.class_names)
    if config.architecture == "small-resnet":
        model: nn.Module = SmallResNet(count, config.width, config.depth)
    elif config.architecture.startswith("timm:"):
        model = timm_architecture(config.architecture.removeprefix("timm:"), count)
    else:
        raise UsageError(f"architecture is 'small-resnet' or 'timm:NAME', not {config.architecture!r}")
    return Predictor(model, config.class_names, size=config.image_size, mean=config.mean, std=config.std)


def save_predictor(
    predictor: Predictor, config: NativePredictorConfig, folder: Path, dtype: torch.dtype = torch.float16
) -> None:
    """Writes `predictor.json` and `model.safetensors`; floating-point weights in `dtype`."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        name: value.to(dtype if value.is_floating_point() else value.dtype).contiguous()
        for name, value in predictor.model.state_dict().items()
    }
    write_whole(folder / "model.safetensors", save(state))
    write_whole(folder / "predictor.json", (json.dumps(asdict(config), indent=1) + "\n").encode())


def read_predictor(folder: Path) -> Predictor:
    """Reads such a folder, weights in fp32. Raises DiffcernError naming what is wrong."""
    check_files("predictor", folder, FILES)
    with reading(folder / "predictor.json", "`diffcern train predictor` writes such a file"):
        config = NativePredictorConfig(**json.loads((folder / "predictor.json").read_text()))
        predictor = native_predictor(config)
    with reading(folder / "model.safetensors", "It may be truncated, or belong to another predictor.json"):
        predictor.model.load_state_dict(load_file(folder / "model.safetensors"))
    return predictor.float()
