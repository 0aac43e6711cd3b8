"""`diffcern list`: what exists by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from diffcern.cli.completing import LISTS, completing
from diffcern.cli.consoles import print_json, results, waiting
from diffcern.cli.options import JsonOption
from diffcern.errors import unknown
from diffcern.kinds import KINDS, QUESTION_ANSWERING

DATASETS = {  # what each form of `diffcern.data.FORMS` is
    "embedded": "shipped: handwritten digits (scikit-learn), two or three of them in an image (100 and 1,000 classes), "
    "rendered scenes with masks, depth and captions; SPLIT is train, validation or test",
    "imagefolder": "a folder with one folder of images per class: the labels are its names",
    "folder": "a folder of images without labels",
    "webdataset": "image tars with labels in .cls members, here or in an object store",
    "files": "images that a text file lists, a path or an address on each line, and a label after a tab",
    "parquet": "one Parquet file, or a folder of them, with a column of encoded images and perhaps labels",
    "hf": "a split of a data set on the Hugging Face hub, as hf:uoft-cs/cifar10:test",
    "hf-stream": "COUNT images of a shuffled stream of such a split, without downloading the rest",
    "imagenet": "ImageNet's validation split, one folder per WordNet id",
    "imagenet-a": "ImageNet-A: natural images that ResNet-50 gets wrong, 200 classes",
    "imagenet-r": "ImageNet-R: art, cartoons and other renditions, 200 classes",
    "imagenet-sketch": "ImageNet-Sketch: black and white sketches of the 1000 classes",
    "imagenet-v2": "ImageNet-V2: a new validation split, collected like the first",
    "imagenet-c": "ImageNet-C: corrupted copies of the validation split, as imagenet-c:ROOT/fog/3",
    "cifar-c": "CIFAR-10-C and CIFAR-100-C: corrupted test images, as cifar-c:ROOT/fog/3",
    "objectnet": "ObjectNet: objects from odd sides; those of its classes that ImageNet has",
}

DESCRIBED = ("predictor.json", "prior.json", "config.json")  # what a shipped folder says of its model
PURPOSES = {  # by type of model, architecture, task or kind of maps
    "llava": "question answering (`diffcern answer`)",
    "clip": "matching, and classification by labels of your own",
    "text-dit": "matching, and images of captions",
    "segmentation": "segmentation",
    "depth": "depth",
}


def listing(
    what: Annotated[str, typer.Argument(help=", ".join(LISTS), autocompletion=completing(lambda: LISTS))] = "",
    as_json: JsonOption = False,
) -> None:
    """What exists by name: methods with their options, priors, predictors, data sets, corruptions."""
    with waiting():
        catalogue = _catalogue()
    if what and what not in catalogue:
        raise unknown("list", what, catalogue)
    chosen = {what: catalogue[what]} if what else catalogue
    if as_json:
        print_json(chosen)
        return
    console = results()
    for title, rows in chosen.items():
        table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
        table.add_column(overflow="fold")
        table.add_column(overflow="fold")
        for name, text in rows.items():
            table.add_row(Text(name, "bold"), Text(text))
        console.print(table, "")


def _catalogue() -> dict[str, dict[str, str]]:
    from diffcern.data import FORMS, PAIR_FORMS, QUESTION_FORMS
    from diffcern.data.corruptions import COMMON, EXTRA
    from diffcern.data.scenes import Scenes
    from diffcern.data.shifts import SHIFTS
    from diffcern.methods import METHODS
    from diffcern.priors.guided_diffusion import PUBLISHED
    from diffcern.priors.hub import FAMILIES

    return {
        "methods": {name: _options(name) for name in METHODS},
        "priors": _shipped("prior")
        | {"hf:OWNER/NAME": f"a hub repository of {', '.join(FAMILIES)}"}
        | {"guided-diffusion:FILE.pt": f"an ADM checkpoint: {', '.join(PUBLISHED)}"}
        | {"PATH": "a folder made by `diffcern train prior`, or one in diffusers' format"},
        "predictors": _shipped("predictor")
        | {"timm:NAME": "any classifier of timm"}
        | {"torchvision:NAME/WEIGHTS": "a classifier or segmenter of torchvision"}
        | {"hf:OWNER/NAME": "image classification, CLIP, SigLIP, segmentation or depth of transformers"}
        | {"PATH": "a folder made by `diffcern train predictor`, or one in the format of transformers or timm"},
        "datasets": {form: DATASETS[name] for name, form in FORMS.items()},
        "pairs": dict.fromkeys(PAIR_FORMS.values(), "images and captions for `diffcern match`"),
        "questions": dict.fromkeys(QUESTION_FORMS.values(), "questions about images for `diffcern answer`"),
        "corruptions": dict.fromkeys(COMMON, "common, severity 1 to 5")
        | dict.fromkeys(EXTRA, "extra, severity 1 to 5")
        | {name: (shift.__doc__ or "").splitlines()[0] for name, shift in SHIFTS.items()}
        | dict.fromkeys(Scenes.renditions, "embedded:scenes drawn otherwise, severity 1 to 5"),
    }


def _shipped(kind: str) -> dict[str, str]:
    """The embedded models of a kind ("prior" or "predictor"), each with what it is for."""
    from diffcern.assets import asset, embedded_names

    return {f"embedded:{name}": f"shipped, for {_purpose(asset(name, kind))}" for name in embedded_names(kind)}


def _purpose(folder: Path) -> str:
    """As the first of its files tells that describes the model."""
    described = next((file for name in DESCRIBED if (file := folder / name).is_file()), None)
    content = json.loads(described.read_text()) if described else {}
    maps = content.get("maps") or {}
    for known in (content.get("model_type"), content.get("architecture"), content.get("task"), maps.get("kind")):
        if known in PURPOSES:
            return PURPOSES[known]
    return "classification"


def _options(method: str) -> str:
    """The options with their published values, and what the preset of `adapt` and `classify` sets instead."""
    from diffcern.methods import METHODS
    from diffcern.methods.options import options_of
    from diffcern.methods.presets import preset_options

    paper = {name: field.default for name, field in options_of(METHODS[method]).model_fields.items()}
    small = preset_options(method, "small")
    text = "options: " + (_told(paper) or "none")
    changes = _told({name: value for name, value in small.items() if value != paper[name]})
    text += f"\nin preset small, the default of adapt and classify: {changes}" if changes else ""
    for task in [*KINDS, QUESTION_ANSWERING]:
        other = preset_options(method, "small", task)
        own = _told({name: value for name, value in other.items() if value != small.get(name, paper[name])})
        text += f"\n... for {task}: {own}" if own else ""
    return text


def _told(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items())
