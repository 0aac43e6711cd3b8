"""Priors by name: embedded ones, our own folders, diffusers pipelines from the hub or a folder, ADM checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from diffcern.assets import asset, embedded_names
from diffcern.errors import DiffcernError, UsageError, unknown
from diffcern.labels import Wanted, vocabulary_of
from diffcern.plugins import PATH, announced, made
from diffcern.priors.base import Prior
from diffcern.priors.controlnet import parse_control
from diffcern.priors.dit import told_frequencies
from diffcern.priors.gaussian import GaussianMixturePrior
from diffcern.priors.guidance import told_guidance
from diffcern.priors.text import TextPrior
from diffcern.quiet import quiet_reading
from diffcern.texts import read_json
from diffcern.watching import doing, note
from diffcern.weight_files import single_file

if TYPE_CHECKING:
    from diffcern.priors.native import NativePrior

__all__ = ["GaussianMixturePrior", "NativePrior", "Prior", "TextPrior", "load_prior"]

CONVERT = "diffusers.StableDiffusionPipeline.from_single_file(FILE).save_pretrained(FOLDER), and give FOLDER"
FORMS = ("hf:OWNER/NAME", "guided-diffusion:FILE.pt", "a folder")  # of names, besides "embedded:NAME"


def load_prior(
    name: str,
    dtype: torch.dtype = torch.float32,
    *,
    device: torch.device | str = "cpu",
    labels: Wanted | None = None,
    templates: Sequence[str] | None = None,
    allow_pickle: bool = False,
) -> Prior:
    """The prior that `name` stands for, frozen.

    "embedded:NAME"; "hf:OWNER/NAME", a hub repository of a known pipeline (see `priors/hub.py`);
    "guided-diffusion:FILE.pt", an ADM checkpoint; or a local folder, in diffusers' format or made by
    `diffcern train prior`. "hf:OWNER/NAME+controlnet:OWNER/NAME" (or folders) adds a ControlNet to Stable Diffusion;
    "+controlnet-seg:OWNER/NAME+palette:FILE.json" and "+controlnet-depth:OWNER/NAME" say what it reads (see
    `priors/controlnet.py`). "+frequencies:published" and "+frequencies:diffusers": of a DiT's time embedding (see
    `priors/dit.py`). "+guidance:3.5": what a distilled network is told (see `priors/guidance.py`). A prior of another
    package: its name, or "my_package.my_module:MyPrior" (see docs/extend.md).

    dtype: the precision of its network; autoencoder, text encoder and noise schedule stay in fp32. device: where it
    is put, and its labels are encoded. labels, templates: for text-to-image priors, the classes and the sentences
    around them (`["a photo of a {}."]`); a mapping gives each label sentences of its own.
    allow_pickle: read weights that exist as pickles only (still without running code). Raises UsageError for a name
    that does not exist or labels out of place, DiffcernError for a prior that cannot be had or read.
    """
    vocabulary = vocabulary_of(labels, templates)
    with doing(f"loading the prior {name}"), quiet_reading():
        prior = _load(name, allow_pickle)
    if isinstance(network := getattr(prior, "denoiser", None), nn.Module):  # a prior may be a formula
        nn.Module.to(network, dtype)  # not diffusers' own, which warns of parts that no model here has
    prior.to(device)
    if vocabulary and isinstance(prior, TextPrior):
        prior.with_labels(vocabulary)
    return prior


def _load(name: str, allow_pickle: bool) -> Prior:
    base, control = parse_control(name)
    family, _, rest = base.partition(":")
    folder = Path(told_frequencies(told_guidance(base)[0])[0]).expanduser()
    if family == "hf" or (folder / "model_index.json").is_file():
        from diffcern.priors.hub import from_hub  # slow to import

        place = rest if family == "hf" else str(Path(base).expanduser())
        return from_hub(place, control=control, allow_pickle=allow_pickle)
    if control:
        raise UsageError(
            f"a ControlNet stands beside Stable Diffusion in diffusers' format, not beside {base}: leave "
            "it out, or give such a folder"
        )
    if family == "embedded":
        return _own(asset(rest, "prior"))
    if family == "guided-diffusion":
        from diffcern.priors.unet import guided_diffusion_prior

        return guided_diffusion_prior(Path(rest).expanduser())
    if not folder.exists():
        prior: Prior | None = made("priors", name, Prior)
        if prior is not None:
            return prior.eval().requires_grad_(False)
        named = (f"embedded:{known}" for known in embedded_names("prior"))
        raise unknown("prior", name, [*named, *FORMS, *announced("priors"), PATH])
    if not (folder / "prior.json").is_file():
        raise DiffcernError(
            f"{folder} is not a prior: it has neither a prior.json (see `diffcern train prior`) nor a model_index.json "
            "(of diffusers)" + single_file(folder, CONVERT)
        )
    return _own(folder)


def _own(folder: Path) -> Prior:
    """A folder that `diffcern train` wrote, of the family that its prior.json names."""
    note(f"a prior is read from {folder}")
    content = read_json(folder / "prior.json")
    architecture = content.get("architecture") if isinstance(content, dict) else None
    if architecture == "text-dit":
        from diffcern.priors.captioned import CaptionedPrior  # slow to import

        return CaptionedPrior.from_pretrained(folder)
    from diffcern.priors.native import NativePrior

    return NativePrior.from_pretrained(folder)


def __getattr__(name: str) -> Any:
    """`NativePrior`, when it is asked for: with it comes diffusers, which takes seconds to import."""
    if name == "NativePrior":
        from diffcern.priors.native import NativePrior

        return NativePrior
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
