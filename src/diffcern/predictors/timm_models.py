"""Classifiers from timm: its registry ("resnet50.a1_in1k") or a folder in the format it saves and publishes."""

from __future__ import annotations

import difflib
import math
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from diffcern.errors import DiffcernError, UsageError, first_line
from diffcern.files import reading
from diffcern.labels import Labels, imagenet_labels, label_space, numbered, unique
from diffcern.predictors.base import Predictor, without_background
from diffcern.predictors.hub import fetch, stored
from diffcern.predictors.probe import check_answer
from diffcern.resizing import Fit
from diffcern.weights import check_network

WORDNET = re.compile(r"n\d{8}")
FITS: dict[str, Fit] = {"center": "crop", "squash": "squeeze"}  # timm's crop_mode


def timm_predictor(name: str, *, allow_pickle: bool = False, backbone: bool = False) -> Predictor:
    """What timm calls "NAME[.TAG]", "hf-hub:OWNER/NAME" or "local-dir:FOLDER", with its weights.

    backbone: without its classifier, if it has one: its outputs are features, and its classes their numbers.
    Raises UsageError for a name that timm does not know, DiffcernError for weights that cannot be had or do not fit.
    """
    import timm  # slow to import, and only needed here

    source, _, rest = name.rpartition(":")
    if source == "local-dir" and not Path(rest).expanduser().is_dir():
        raise UsageError(f"there is no folder {rest!r}")
    if source in ("hf-hub", "local-dir"):
        return timm_folder(fetch(rest, allow_pickle=allow_pickle), rest, allow_pickle=allow_pickle, backbone=backbone)
    known = timm.list_pretrained()
    if name not in known and name not in {tagged.partition(".")[0] for tagged in known}:
        raise _unknown(name, known, "list_pretrained")
    config = timm.models.get_pretrained_cfg(name)
    if config.hf_hub_id:
        folder = fetch(config.hf_hub_id, allow_pickle=allow_pickle)  # into the cache, from where timm reads it
        stored(folder, config.hf_hub_id, allow_pickle)
    elif not allow_pickle:
        raise DiffcernError(
            f"timm has no safetensors weights for {name!r}. Pickled weights can run code when they are read: choose "
            "another tag, or pass allow_pickle=True if you trust where they come from"
        )
    return _wrap(_create(name, backbone), name, backbone)


def timm_folder(folder: Path, name: str, *, allow_pickle: bool = False, backbone: bool = False) -> Predictor:
    """The model in a folder with timm's config.json and model.safetensors; name: what messages call it. backbone: as in
    `timm_predictor`.

    Raises DiffcernError when it has no label names or its weights do not fit.
    """
    weights = stored(folder, name, allow_pickle)
    model = _create(f"local-dir:{folder}", backbone)
    check_network(f"of {name}", model, weights.files(folder, "transformers"))
    return check_answer(_wrap(model, name, backbone), name)


def timm_architecture(name: str, classes: int, size: int) -> nn.Module:
    """A model of timm's registry with random weights and that many outputs, for square images of that size.

    Raises UsageError for an unknown name, or a model that cannot be built for the size.
    """
    import timm

    known = timm.list_models()
    if name not in known and name not in timm.list_pretrained():
        raise _unknown(name, known, "list_models")
    fixed = timm.models.get_pretrained_cfg(name).fixed_input_size  # vision transformers and mixers; others take any
    try:
        model = timm.create_model(name, num_classes=classes, **({"img_size": size} if fixed else {}))
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, size, size))  # some are built, and then cannot take them
    except Exception as error:  # every architecture has its own
        raise UsageError(f"{name} of timm cannot take images of {size} pixels: {first_line(error)}") from error
    return model.train()


def _unknown(name: str, known: list[str], function: str) -> UsageError:
    near = difflib.get_close_matches(name, known, n=5, cutoff=0.0)
    return UsageError(
        f"timm has no model {name!r}. Did you mean {' or '.join(map(repr, near))}? "
        f"timm.{function}('*resnet*') lists the names that contain a word"
    )


def _create(name: str, backbone: bool) -> Any:
    import timm

    try:
        return timm.create_model(name, pretrained=True, **({"num_classes": 0} if backbone else {}))
    except Exception as error:  # a key that is missing, a shape that differs, a download that broke
        lines = [line.strip() for line in str(error).splitlines()[:4]]
        raise DiffcernError(f"timm cannot load {name}: {' '.join(lines)[:600]}") from error


def _wrap(model: Any, name: str, backbone: bool) -> Predictor:
    from timm.data import resolve_model_data_config

    stored_outputs = model.pretrained_cfg.get("num_classes", model.num_classes)
    if not backbone and model.num_classes != stored_outputs:  # timm then drops the head
        raise DiffcernError(
            f"the config.json of {name} asks for {model.num_classes} outputs of weights that have {stored_outputs}: "
            "its classifier would be random"
        )
    with reading(Path(name), "Its config.json is damaged"):
        config = resolve_model_data_config(model)
        channels, height, width = config["input_size"]
    if channels != 3 or config["crop_mode"] not in FITS or config["interpolation"] not in ("bilinear", "bicubic"):
        raise DiffcernError(
            f"{name} wants {channels} channels, crop_mode {config['crop_mode']!r} and {config['interpolation']!r} "
            f"interpolation; known are 3 channels, {' and '.join(FITS)}, bilinear and bicubic. Wrap it yourself in "
            "diffcern.Predictor"
        )
    with reading(Path(name), "Its config.json is damaged"):
        labels = numbered(_width(model, (height, width))) if backbone else _labels(model, name)
    predictor = Predictor(
        model,
        labels.names,
        size=height if height == width else (height, width),
        crop=height / math.floor(height / config["crop_pct"]),
        fit=FITS[config["crop_mode"]],
        interpolation=config["interpolation"],
        mean=config["mean"],
        std=config["std"],
        class_ids=labels.ids,
    )
    return without_background(predictor)


@torch.no_grad()
def _width(model: Any, shape: tuple[int, int]) -> int:
    """How many features a model without its classifier answers with: num_features, or those of a layer before it."""
    return int(model.eval()(torch.zeros(1, 3, *shape)).shape[1])


def _labels(model: Any, name: str) -> Labels:
    """The names in the model's own configuration, else those of the ImageNet variant with as many classes."""
    from timm.data import CustomDatasetInfo, infer_imagenet_subset

    config, count = model.pretrained_cfg, model.num_classes
    if not count:
        raise DiffcernError(
            f"{name} was saved without its classifier (num_classes 0): it gives features, and no answers. Give the "
            "model with its head, or train one and save it with label_names"
        )
    if listed := config.get("label_names"):
        if len(listed) != count:
            raise DiffcernError(
                f"{name} has {count} outputs and {len(listed)} label_names in its config.json: list one for each"
            )
        info = CustomDatasetInfo(listed, config.get("label_descriptions"))
        keys = [info.index_to_label_name(index) for index in range(count)]
        described = [info.index_to_description(index) for index in range(count)]
        if all(WORDNET.fullmatch(key) for key in keys):
            return Labels(unique(described, keys), tuple(keys))
        return label_space(described)
    subset = infer_imagenet_subset(model)
    if subset is None:
        raise DiffcernError(
            f"{name} has {count} outputs and no label names: a classifier's config.json lists them as label_names"
        )
    return imagenet_labels(subset)
