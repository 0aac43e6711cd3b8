"""Published priors in diffusers' format, from the hub or a folder: the family of a pipeline, and its networks."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

from diffusers import ControlNetModel, DiffusionPipeline
from torch import nn

from diffcern import hub
from diffcern.errors import DiffcernError, UsageError
from diffcern.files import reading
from diffcern.priors.base import Prior
from diffcern.priors.controlnet import Control
from diffcern.priors.dit import DiTPrior
from diffcern.priors.stable_diffusion import StableDiffusion3Prior, StableDiffusionPrior, StableDiffusionXLPrior
from diffcern.priors.unet import UNetPrior
from diffcern.weights import check_described, check_loaded, check_network

INDEX = "model_index.json"
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
# What the libraries call a network's weights, as safetensors and as pickles. Those of other precisions
# ("model.fp16.safetensors") and other formats lie beside them in many repositories, and are not fetched.
WEIGHTS = {
    "diffusers": ("diffusion_pytorch_model{}.safetensors", "diffusion_pytorch_model{}.bin"),
    "transformers": ("model{}.safetensors", "pytorch_model{}.bin"),
}


def from_hub(name: str, *, control: Control | None = None, allow_pickle: bool = False) -> Prior:
    """The prior in a hub repository ("facebook/DiT-XL-2-256[@REVISION]") or a local folder of the same layout, in fp32.

    control: likewise, a ControlNet beside a Stable Diffusion U-Net. Raises UsageError for one that does not
    fit, DiffcernError for what cannot be had, belongs to no known family, brings code along, lacks files or tensors or
    has tensors too many, or has its weights as pickles only (allow_pickle lets those through, read without running
    code).
    """
    folder = hub.download(name, (INDEX,), INDEX)
    with reading(folder / INDEX, "Give a folder or a repository in diffusers' format"):
        index = DiffusionPipeline.load_config(str(folder))
    if not isinstance(index, dict):
        raise DiffcernError(f"{folder / INDEX} must be a JSON object, as diffusers writes it")
    kind = str(index.get("_class_name", "pipeline without a name"))
    if kind not in FAMILIES:
        raise DiffcernError(f"{name} is a {kind}; priors are read from {', '.join(FAMILIES)}")
    components = {part: value for part, value in index.items() if isinstance(value, list | tuple) and len(value) == 2}
    used = {
        part: _class(name, part, *value)
        for part, value in components.items()
        if part not in UNUSED and any(value)  # an optional one that is left out is [null, null]
    }
    networks = {part: value for part, value in used.items() if issubclass(value, nn.Module)}
    folder = _fetch(name, INDEX, used.keys(), networks, allow_pickle)
    loaded = {part: _network(folder / part, value, allow_pickle) for part, value in networks.items()}
    left_out: dict[str, Any] = dict.fromkeys(components.keys() - used.keys())
    with reading(folder, "It may be incomplete"):
        pipeline = DiffusionPipeline.from_pretrained(str(folder), **loaded, **left_out)
    pipeline.set_progress_bar_config(disable=True)
    with reading(folder, "One of its configuration files may be damaged"):
        prior = FAMILIES[kind].from_pipeline(pipeline, index)
    if control is not None:
        place = _fetch(control.name, "config.json", [""], {"": ControlNetModel}, allow_pickle)
        controlnet = _network(place, ControlNetModel, allow_pickle)
        width = controlnet.config.cross_attention_dim
        if not isinstance(prior, StableDiffusionPrior) or width != prior.denoiser.config.cross_attention_dim:
            raise UsageError(f"{control.name} was trained beside another U-Net than that of {name} ({kind})")
        prior.control(controlnet, control)
    return prior


def _class(name: str, part: str, library: str, class_name: str) -> Any:
    """The class of a pipeline's component."""
    named = isinstance(library, str) and isinstance(class_name, str)
    found = getattr(import_module(library), class_name, None) if named and library in WEIGHTS else None
    if not isinstance(found, type):
        raise DiffcernError(
            f"{name} has {library}.{class_name} as its {part}, which {' and '.join(WEIGHTS)} do not know here: priors "
            "never run a repository's own code"
        )
    return found


def _weights(part: str, network: Any) -> tuple[list[str], list[str]]:
    """The patterns of a network's weights in its repository: safetensors, pickles."""
    files = WEIGHTS[network.__module__.partition(".")[0]]
    safe, pickled = ([str(PurePosixPath(part, file.format(shard))) for shard in ("", "-*")] for file in files)
    return safe, pickled


def _fetch(
    name: str, configuration: str, parts: Collection[str], networks: Mapping[str, Any], allow_pickle: bool
) -> Path:
    """The folder with these parts (its folders) and the weights of those that are networks; not all that is published.

    Raises DiffcernError for a part that is not there, or has no weights that may be read.
    """
    weights = [_weights(part, network) for part, network in networks.items()]
    text = [str(PurePosixPath(part, file)) for part in parts for file in hub.TEXT]
    folder = hub.download(name, [*text, *(file for safe, _ in weights for file in safe)], configuration)
    pickles = [file for safe, pickled in weights for file in pickled if not hub.holds(folder, safe)]
    if allow_pickle and pickles:
        hub.download(name, pickles, configuration)
    if missing := [part for part in parts if not (folder / part).is_dir()]:
        raise DiffcernError(
            f"{name} lacks {', '.join(missing)}: {folder} holds only a part of it. Complete that folder; a hub "
            "repository by running this once on a machine with a network and copying its cache"
        )
    for safe, pickled in weights:
        hub.check_weights(folder, name, safe, pickled, allow_pickle)
    return folder


def _network(folder: Path, architecture: Any, allow_pickle: bool) -> Any:
    """A network whose tensors are exactly the checkpoint's."""
    diffusers = architecture.__module__.startswith("diffusers.")
    options = {"low_cpu_mem_usage": False} if diffusers else {}  # else it leaves tensors without a value
    with reading(folder, "It may be truncated, or belong to another config.json"):
        check_described(
            folder / "config.json", lambda: _described(architecture, folder), [*folder.glob("*.safetensors")]
        )
        network, info = architecture.from_pretrained(
            folder, use_safetensors=None if allow_pickle else True, output_loading_info=True, **options
        )
    check_loaded(f"in {folder}", info)
    check_network(f"in {folder}", network, folder.glob("*.safetensors"))
    return network


def _described(architecture: Any, folder: Path) -> Any:
    """The network of a folder's config.json, with no weights of any use."""
    if architecture.__module__.startswith("diffusers."):
        return architecture.from_config(architecture.load_config(folder))
    return architecture(architecture.config_class.from_pretrained(folder))
