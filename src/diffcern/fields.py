"""What the fields of jobs are: their types, what they mean, and how a command line spells them.

A type is written once, here or in the job that alone has it, and serves four times: pydantic checks values by it, its
description is a command's help and a JSON schema's text, its bounds are those of an option. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from diffcern.given import names_of, parse_class_map, parse_labels, parse_set


@dataclass(frozen=True)
class Spelling:
    """How a command line takes a field, where it is not `--its-name`.

    flags: in place of that. argument: by its place. values: the two that a switch "--one/--other" stands for.
    text: the type in which it is given, where the field holds another that is made of this (`BeforeValidator`).
    """

    flags: tuple[str, ...] = ()
    argument: bool = False
    values: tuple[Any, Any] = (True, False)
    text: Any = None


def spelling_of(hint: Any) -> Spelling:
    """Of a field by its annotation, plain where that says nothing of it."""
    return next((note for note in getattr(hint, "__metadata__", ()) if isinstance(note, Spelling)), Spelling())


def help_of(text: str, **bounds: Any) -> Any:
    """What a field means, and its bounds: ge, le, allow_inf_nan."""
    return Field(description=text, **bounds)


def parsed_labels(value: Any) -> Any:
    return parse_labels(value) if isinstance(value, str) else value


def parsed_class_map(value: Any) -> Any:
    return parse_class_map(Path(value)) if isinstance(value, str | Path) else value


def parsed_options(value: Any) -> Any:
    return parse_set(value) if isinstance(value, list | tuple) else value


def parsed_names(value: Any) -> Any:
    return names_of(value) if isinstance(value, str) else value


def parsed_numbers(value: Any) -> Any:
    """Numbers as they are typed, 0.4,1: split; whoever validates them says which are none."""
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


ARGUMENT = Spelling(argument=True)
MODEL = "hf:OWNER/NAME, embedded:digits or a folder"

Images = Annotated[str, help_of("a folder of images, one image, or a data set such as parquet:PATH"), ARGUMENT]
PredictorName = Annotated[
    str, help_of("timm:NAME, torchvision:NAME/WEIGHTS, hf:OWNER/NAME, embedded:digits or a folder")
]
AbstainBelow = Annotated[float | None, help_of('answers less sure than this become "unsure", 0 to 1', ge=0, le=1)]
PriorName = Annotated[str, help_of(MODEL)]
TaskOption = Annotated[str, help_of("classification, segmentation or depth")]
Labels = Annotated[
    tuple[str, ...] | dict[str, tuple[str, ...]] | None,
    BeforeValidator(parsed_labels),
    help_of("what to tell apart: a,b or a file: one a line, JSON, or a CSV with columns prompt, label"),
    Spelling(text=str),
]
Templates = Annotated[
    tuple[str, ...] | None,
    help_of("sentence around a label, for models that read text; repeatable"),
    Spelling(("--prompt",)),
]
ClassMap = Annotated[
    dict[str, str] | None,
    BeforeValidator(parsed_class_map),
    help_of("JSON object: the prior's or data's name of a class -> yours"),
    Spelling(text=Path),
]
ClassNames = Annotated[
    tuple[str, ...] | None,
    BeforeValidator(parsed_names),
    help_of("comma-separated, where the data name none"),
    Spelling(text=str),
]
Preset = Annotated[str, help_of("paper (published values) or small (small models)")]
Options = Annotated[
    dict[str, Any],
    BeforeValidator(parsed_options),
    help_of("name=value, an option of the method"),
    Spelling(("--set",), text=list[str]),
]
View = Annotated[
    Literal["centre", "whole"],  # `resizing.View`
    help_of("what the prior is shown: the centre square of an image, or the whole, squeezed"),
]
MaxSide = Annotated[int | None, help_of("shrink larger images (to 1,000 megapixels) in loading", ge=1)]
Device = Annotated[str, help_of("auto, cpu, cuda or mps")]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    help_of("precision of the prior's network: auto, float32, bfloat16 or float16"),
]
Compile = Annotated[bool, help_of("compile the prior's network (torch.compile)")]
AllowPickle = Annotated[bool, help_of("read weights that exist as pickles only")]
TrustRemoteCode = Annotated[bool, help_of("run code that a repository brings along")]
Seed = Annotated[int, help_of("every random number is keyed by it and the image")]
