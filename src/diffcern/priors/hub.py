"""Published priors in diffusers' format, from the hub or a folder: which family a pipeline belongs to."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
from diffusers import ControlNetModel, DiffusionPipeline

from diffcern.errors import DiffcernError, UsageError
from diffcern.predictors.hub import _download as download
from diffcern.priors.base import Prior
from diffcern.priors.dit import DiTPrior
from diffcern.priors.text import StableDiffusion3Prior, StableDiffusionPrior, StableDiffusionXLPrior
from diffcern.priors.unet import UNetPrior

FAMILIES: dict[str, Any] = {
    "DiTPipeline": DiTPrior,
    "StableDiffusionPipeline": StableDiffusionPrior,
    "StableDiffusionDepth2ImgPipeline": StableDiffusionPrior,
    "StableDiffusionXLPipeline": StableDiffusionXLPrior,
    "StableDiffusion3Pipeline": StableDiffusion3Prior,
    "DDPMPipeline": UNetPrior,
    "DDIMPipeline": UNetPrior,
}
UNUSED = (
    "safety_checker",
    "feature_extractor",
    "image_encoder",
    "depth_estimator",
)  # components that a prior has no use for


def from_hub(name: str, *, controlnet: str | None = None, allow_pickle: bool = False) -> Prior:
    """The prior in a hub repository ("facebook/DiT-XL-2-256") or a local folder of the same layout, in fp32.

    controlnet: likewise, of a ControlNet beside a Stable Diffusion U-Net. Raises UsageError for one that does not
    fit, DiffcernError for what cannot be had, belongs to no known family, lacks tensors or has ones too many, or has
    its weights as pickles only (allow_pickle lets those through, read without running code).
    """
    safetensors = None if allow_pickle else True
    with _explained(name):
        config = DiffusionPipeline.load_config(_configuration(name, "model_index.json"))
        kind = config.get("_class_name", "pipeline without a name")
        family = FAMILIES.get(kind)
        if family is None:
            raise DiffcernError(f"{name} is a {kind}; priors are read from {', '.join(FAMILIES)}")
        part = "unet" if "unet" in config else "transformer"
        denoiser = _network(getattr(diffusers, config[part][1]), name, part, safetensors)
        empty = (component for component, value in config.items() if component in UNUSED or value == [None, None])
        left_out: dict[str, Any] = dict.fromkeys(empty)
        pipeline = DiffusionPipeline.from_pretrained(name, use_safetensors=safetensors, **{part: denoiser}, **left_out)
    pipeline.set_progress_bar_config(disable=True)
    prior = family.from_pipeline(pipeline, config)
    if controlnet is not None:
        with _explained(controlnet):
            _configuration(controlnet, "config.json")
            control = _network(ControlNetModel, controlnet, "", safetensors)
        width = control.config.cross_attention_dim
        if not isinstance(prior, StableDiffusionPrior) or width != denoiser.config.cross_attention_dim:
            raise UsageError(f"{controlnet} was trained beside another U-Net than that of {name} ({kind})")
        prior.control(control)
    return prior


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turns what the readers raise about `name` into a DiffcernError that says what to do."""
    try:
        with warnings.catch_warnings():  # diffusers gives huggingface_hub an argument that is no more
            warnings.filterwarnings("ignore", "The `local_dir_use_symlinks`", UserWarning)
            yield
    except (OSError, ValueError, RuntimeError) as error:
        what = " ".join(str(error).split())[:300]
        advice = (
            "Weights that exist as pickles only are refused; allow_pickle=True (--allow-pickle) reads them"
            if Path(name).is_dir()
            else "Give a local folder in diffusers' format, or run once on a machine with a network, to fill the cache"
        )
        raise DiffcernError(f"cannot load the prior {name}: {what}. {advice}") from error


def _configuration(name: str, file: str) -> Path:
    """The folder that holds a repository's configuration; without a network or a cache this fails at once, where
    diffusers' own readers try again and again."""
    return Path(name) if Path(name).is_dir() else download(name, (file,))


def _network(architecture: Any, name: str, part: str, safetensors: bool | None) -> Any:
    """A network of diffusers, complete. part: the repository's subfolder."""
    network, info = architecture.from_pretrained(
        name, subfolder=part, use_safetensors=safetensors, output_loading_info=True, low_cpu_mem_usage=False
    )
    _check_complete(str(Path(name) / part) if part else name, info)
    return network


def _check_complete(where: str, info: dict[str, Any]) -> None:
    """Raises DiffcernError unless the checkpoint's tensors are the network's."""
    problems = {"lacks": info["missing_keys"], "has too much:": info["unexpected_keys"]}
    problems["has another shape of"] = [mismatch[0] for mismatch in info.get("mismatched_keys", [])]
    found = [f"{what} {len(keys)} tensors ({', '.join(sorted(keys)[:3])})" for what, keys in problems.items() if keys]
    if found:
        raise DiffcernError(f"the weights in {where} do not fit its config.json: it {'; it '.join(found)}")
