"""Classifiers and semantic segmenters from torchvision, as "NAME/WEIGHTS" ("resnet50/IMAGENET1K_V2")."""

from __future__ import annotations

from typing import Any

from diffcern.errors import DiffcernError, UsageError, first_line, unknown
from diffcern.kinds import KINDS, TaskName
from diffcern.labels import label_space
from diffcern.predictors.base import Output, Predictor


def torchvision_predictor(name: str) -> Predictor:
    """The model with those weights and the transforms that torchvision ships with them.

    Its weights are pickles from pytorch.org, named by their hash; they are read without running code. Raises
    UsageError for a name that does not exist, DiffcernError when the weights cannot be downloaded or read.
    """
    from torchvision import models  # slow to import, and only needed here

    architecture, _, tag = name.partition("/")
    known = [*models.list_models(models), *models.list_models(models.segmentation)]
    if architecture not in known:
        raise unknown("torchvision model", architecture, known)
    choices = {weights.name: weights for weights in models.get_model_weights(architecture)}
    if tag not in choices:
        raise unknown(f"weights of torchvision:{architecture}", tag, choices)
    weights = choices[tag]
    try:
        weights.get_state_dict(progress=True, check_hash=True, weights_only=True)  # raises if it holds code
        model = models.get_model(architecture, weights=weights)
    except Exception as error:  # no network, a broken download, a file that is not what it should be
        raise DiffcernError(
            f"cannot load the weights {weights.url}: {first_line(error)}. Run this once on a machine with a "
            "network, or put the file into the folder checkpoints below torch.hub.get_dir()"
        ) from error
    return _wrap(model, weights, name)


def _wrap(model: Any, weights: Any, name: str) -> Predictor:
    transforms = weights.transforms()
    if not hasattr(transforms, "resize_size") or transforms.interpolation.value not in ("bilinear", "bicubic"):
        raise UsageError(f"torchvision:{name} is neither a classifier nor a semantic segmenter: name a model that is")
    (resized,) = transforms.resize_size
    (size,) = getattr(transforms, "crop_size", transforms.resize_size)
    task: TaskName = "classification" if hasattr(transforms, "crop_size") else "segmentation"
    labels = label_space(weights.meta["categories"])
    return Predictor(
        model if not KINDS[task].dense else Output(model, "out"),
        labels.names,
        size=size,
        crop=size / resized,
        fit="crop",
        interpolation=transforms.interpolation.value,
        mean=transforms.mean,
        std=transforms.std,
        class_ids=labels.ids,
        task=task,
    )
