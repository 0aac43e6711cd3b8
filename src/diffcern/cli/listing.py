"""`diffcern list`: what exists by name."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from diffcern.cli.options import JsonOption
from diffcern.errors import unknown


def listing(
    what: Annotated[str, typer.Argument(help="methods, priors, predictors, datasets, pairs, corruptions")] = "",
    as_json: JsonOption = False,
) -> None:
    """What exists by name: methods with their options, priors, predictors, data sets, corruptions."""
    catalogue = _catalogue()
    if what and what not in catalogue:
        raise unknown("list", what, catalogue)
    chosen = {what: catalogue[what]} if what else catalogue
    if as_json:
        typer.echo(json.dumps(chosen, indent=1))
        return
    console = Console()
    for title, rows in chosen.items():
        table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
        for name, text in rows.items():
            table.add_row(Text(name, "bold"), Text(text))
        console.print(table, "")


def _catalogue() -> dict[str, dict[str, str]]:
    from diffcern.assets import embedded_names
    from diffcern.data import FORMS
    from diffcern.data.corruptions import COMMON, EXTRA
    from diffcern.data.pairs import PAIR_FORMS
    from diffcern.data.shifts import SHIFTS
    from diffcern.methods import METHODS, options_of
    from diffcern.priors.guided_diffusion import PUBLISHED
    from diffcern.priors.hub import FAMILIES

    return {
        "methods": {
            name: "options: "
            + (", ".join(f"{k}={f.default}" for k, f in options_of(cls).model_fields.items()) or "none")
            for name, cls in METHODS.items()
        },
        "priors": {f"embedded:{name}": "shipped" for name in embedded_names("prior")}
        | {"hf:OWNER/NAME": f"a hub repository of {', '.join(FAMILIES)}"}
        | {"guided-diffusion:FILE.pt": f"an ADM checkpoint: {', '.join(PUBLISHED)}"}
        | {"PATH": "a folder made by `diffcern train prior`, or one in diffusers' format"},
        "predictors": {f"embedded:{name}": "shipped" for name in embedded_names("predictor")}
        | {"timm:NAME": "any classifier of timm"}
        | {"torchvision:NAME/WEIGHTS": "a classifier or segmenter of torchvision"}
        | {"hf:OWNER/NAME": "image classification, CLIP, SigLIP, segmentation or depth of transformers"}
        | {"PATH": "a folder made by `diffcern train predictor`, or one in the format of transformers or timm"},
        "datasets": {form: f"{name} data" for name, form in FORMS.items()},
        "pairs": dict.fromkeys(PAIR_FORMS.values(), "images and captions for `diffcern match`"),
        "corruptions": dict.fromkeys(COMMON, "common, severity 1 to 5")
        | dict.fromkeys(EXTRA, "extra, severity 1 to 5")
        | {name: (shift.__doc__ or "").splitlines()[0] for name, shift in SHIFTS.items()},
    }
