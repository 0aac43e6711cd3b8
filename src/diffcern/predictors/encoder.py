"""What a frozen network sees in an image, as a row of numbers: features before its classifier, or all of its answer."""

from __future__ import annotations

import torch
from jaxtyping import Float32
from torch import Tensor, nn

from diffcern.errors import UsageError
from diffcern.predictors import load_predictor
from diffcern.predictors.base import Predictor
from diffcern.predictors.clip import ZeroShot
from diffcern.predictors.hub import folder_of
from diffcern.predictors.timm_models import timm_predictor
from diffcern.predictors.transformers_models import task_of_classes, transformers_backbone
from diffcern.resizing import Images
from diffcern.texts import read_json


class Encoder(nn.Module):
    """Features `[B, D]` of images in [0, 1] of any size, in fp32: what the last linear layer is given that sees one row
    for each image; a CLIP's own; and the whole answer of a network without a classifier (backbone=True)."""

    def __init__(self, predictor: Predictor, *, backbone: bool = False) -> None:
        super().__init__()
        self.predictor, self.backbone = predictor.eval().requires_grad_(False), backbone

    @torch.no_grad()
    def forward(self, images: Images) -> Float32[Tensor, "batch features"]:
        """Raises UsageError for a network without such a layer."""
        model = self.predictor.model
        if isinstance(model, ZeroShot):
            return model.features(self.predictor.prepare(images)).float()
        if self.backbone:
            return self.predictor(images).flatten(1).float()
        given: list[Tensor] = []
        layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
        handles = [layer.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0])) for layer in layers]
        try:
            self.predictor(images)
        finally:
            for handle in handles:
                handle.remove()
        rows = [value for value in given if value.ndim == 2 and len(value) == len(images)]
        if not rows:
            raise UsageError("the encoder's network has no linear layer over features of the whole image: give another")
        return rows[-1].float()


def feature_map(predictor: Predictor, images: Images) -> Float32[Tensor, "batch channels height width"]:
    """The last map, with more than one row and column, that the predictor makes of images in [0, 1]; differentiable.
    Raises UsageError for a network without one."""
    maps: list[Tensor] = []

    def keep(module: nn.Module, given: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[-2:]) > 1:
            maps.append(output)

    handles = [module.register_forward_hook(keep) for module in predictor.model.modules()]
    try:
        predictor(images)
    finally:
        for handle in handles:
            handle.remove()
    if not maps:
        raise UsageError("the encoder has no map of features [B, C, h, w] with h and w above 1: give another one")
    return maps[-1].float()


def load_encoder(name: str) -> Encoder:
    """The encoder that a predictor's name stands for, see `load_predictor`; models without a classifier (of timm, or
    backbones of transformers such as DINOv2) have a name too. Raises as `load_predictor`.
    """
    family, _, rest = name.partition(":")
    if family == "timm":
        return Encoder(timm_predictor(rest, backbone=True), backbone=True)
    if family == "torchvision":
        return Encoder(load_predictor(name))
    folder = folder_of(name)
    config = read_json(folder / "config.json", finite=False) if (folder / "config.json").is_file() else {}
    ours = not isinstance(config, dict) or "model_type" not in config  # or timm's, or damaged
    if ours or task_of_classes(config.get("architectures") or []):
        return Encoder(load_predictor(name))
    return Encoder(transformers_backbone(folder, name), backbone=True)
