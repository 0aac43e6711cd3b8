"""Published priors in diffusers' format, from the hub or a folder: which family a pipeline belongs to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
from diffusers import DiffusionPipeline

from diffcern.errors import DiffcernError
from diffcern.priors.base import Prior
from diffcern.priors.dit import DiTPrior
from diffcern.priors.text import StableDiffusion3Prior, StableDiffusionPrior, StableDiffusionXLPrior
from diffcern.priors.unet import UNetPrior

FAMILIES: dict[str, Any] = {
    "DiTPipeline": DiTPrior,
    "StableDiffusionPipeline": StableDiffusionPrior,
    "StableDiffusionXLPipeline": StableDiffusionXLPrior,
    "StableDiffusion3Pipeline": StableDiffusion3Prior,
    "DDPMPipeline": UNetPrior,
    "DDIMPipeline": UNetPrior,
}
UNUSED = ("safety_checker", "feature_extractor", "image_encoder")  # components that a prior has no use for


def from_hub(name: str, *, allow_pickle: bool = False) -> Prior:
    """The prior in a hub repository ("facebook/DiT-XL-2-256") or a local folder of the same layout, in fp32.

    Raises DiffcernError when it cannot be had, belongs to no known family, lacks tensors or has ones too many, or has
    its weights as pickles only (allow_pickle lets those through, read without running code).
    """
    try:
        config = DiffusionPipeline.load_config(name)
        kind = config.get("_class_name", "pipeline without a name")
        family = FAMILIES.get(kind)
        if family is None:
            raise DiffcernError(f"{name} is a {kind}; priors are read from {', '.join(FAMILIES)}")
        part = "unet" if "unet" in config else "transformer"
        safetensors = None if allow_pickle else True
        denoiser, info = getattr(diffusers, config[part][1]).from_pretrained(
            name, subfolder=part, use_safetensors=safetensors, output_loading_info=True, low_cpu_mem_usage=False
        )
        _check_complete(name, part, info)
        empty = (component for component, value in config.items() if component in UNUSED or value == [None, None])
        left_out: dict[str, Any] = dict.fromkeys(empty)
        pipeline = DiffusionPipeline.from_pretrained(name, use_safetensors=safetensors, **{part: denoiser}, **left_out)
    except (OSError, ValueError, RuntimeError) as error:
        what = " ".join(str(error).split())[:300]
        advice = (
            "Weights that exist as pickles only are refused; allow_pickle=True (--allow-pickle) reads them"
            if Path(name).is_dir()
            else "Give a local folder in diffusers' format, or run once on a machine with a network, to fill the cache"
        )
        raise DiffcernError(f"cannot load the prior {name}: {what}. {advice}") from error
    pipeline.set_progress_bar_config(disable=True)
    return family.from_pipeline(pipeline, config)


def _check_complete(name: str, part: str, info: dict[str, Any]) -> None:
    """Raises DiffcernError unless the checkpoint's tensors are the network's."""
    problems = {"lacks": info["missing_keys"], "has too much:": info["unexpected_keys"]}
    problems["has another shape of"] = [mismatch[0] for mismatch in info.get("mismatched_keys", [])]
    found = [f"{what} {len(keys)} tensors ({', '.join(sorted(keys)[:3])})" for what, keys in problems.items() if keys]
    if found:
        raise DiffcernError(f"the weights in {name}/{part} do not fit its config.json: it {'; it '.join(found)}")
