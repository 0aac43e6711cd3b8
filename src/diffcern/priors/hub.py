"""Published priors in diffusers' format, from the hub or a folder: the family of a pipeline, and its networks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

from torch import nn

from diffcern import hub
from diffcern.errors import DiffcernError, UsageError
from diffcern.files import reading
from diffcern.priors.base import Prior
from diffcern.priors.controlnet import Control
from diffcern.priors.dit import FREQUENCIES, DiTPrior, told_frequencies, usual_frequencies
from diffcern.priors.flux import Flux2KleinPrior, FluxPrior
from diffcern.priors.guidance import GUIDANCE, told_guidance
from diffcern.priors.pixart import PixArtPrior
from diffcern.priors.sana import SanaPrior
from diffcern.priors.sizes import size_options
from diffcern.priors.stable_diffusion import StableDiffusion3Prior, StableDiffusionPrior, StableDiffusionXLPrior
from diffcern.priors.text import TextPrior
from diffcern.priors.unet import UNetPrior
from diffcern.weight_files import STEMS, Stored, fetch_weights, stored_weights
from diffcern.weights import check_described, check_loaded, check_network

INDEX = "model_index.json"
FAMILIES: dict[str, Any] = {
    "DiTPipeline": DiTPrior,
    "StableDiffusionPipeline": StableDiffusionPrior,
    "StableDiffusionDepth2ImgPipeline": StableDiffusionPrior,
    "StableDiffusionXLPipeline": StableDiffusionXLPrior,
    "LatentConsistencyModelPipeline": StableDiffusionPrior,
    "StableDiffusion3Pipeline": StableDiffusion3Prior,
    "PixArtAlphaPipeline": PixArtPrior,
    "PixArtSigmaPipeline": PixArtPrior,
    "SanaPipeline": SanaPrior,
    "FluxPipeline": FluxPrior,
    "Flux2KleinPipeline": Flux2KleinPrior,
    "DDPMPipeline": UNetPrior,
    "DDIMPipeline": UNetPrior,
}
NEEDED = ("scheduler", "unet", "transformer", "vae")  # where a family has them
READERS = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")  # likewise; SDXL reads with either or both
UNUSED = (
    "safety_checker",
    "feature_extractor",
    "image_encoder",
    "depth_estimator",
)  # components that a prior has no use for


def from_hub(name: str, *, control: Control | None = None, allow_pickle: bool = False) -> Prior:
    """The prior in a hub repository ("facebook/DiT-XL-2-256[@REVISION]") or a local folder of the same layout, in fp32.

    control: likewise, a ControlNet beside a Stable Diffusion U-Net. A DiT's name may end in "+frequencies:..." (see
    `priors/dit.py`), that of a distilled network in "+guidance:..." (see `priors/guidance.py`). Raises UsageError for
    one that does not fit, DiffcernError for what cannot be had, belongs to no known family, brings code along, lacks
    files or tensors or has tensors too many, or has its weights as pickles only (allow_pickle lets those through, read
    without running code).
    """
    from diffusers import ControlNetModel, DiffusionPipeline  # slow to import

    name, guidance = told_guidance(name)
    name, wanted = told_frequencies(name)
    folder = hub.download(name, (INDEX,), INDEX)
    if not (folder / INDEX).is_file():
        raise DiffcernError(
            f"{name} has no {INDEX}: it is no repository of a whole pipeline in diffusers' format. Files of weights "
            "alone (.safetensors, .ckpt) are converted once, by from_single_file of the pipeline and save_pretrained"
        )
    with reading(folder / INDEX, "Give a folder or a repository in diffusers' format"):
        index = DiffusionPipeline.load_config(str(folder))
    if not isinstance(index, dict):
        raise DiffcernError(f"{folder / INDEX} must be a JSON object, as diffusers writes it")
    kind = str(index.get("_class_name", "pipeline without a name"))
    if kind not in FAMILIES:
        raise DiffcernError(f"{name} is a {kind}; priors are read from {', '.join(FAMILIES)}")
    if wanted and FAMILIES[kind] is not DiTPrior:
        raise UsageError(f"+{FREQUENCIES} is for DiTs, and {name} is a {kind}: leave it out")
    if guidance is not None and not issubclass(FAMILIES[kind], TextPrior):
        raise UsageError(
            f"+{GUIDANCE} is for distilled networks that read prompts, and {name} is a {kind}: leave it out"
        )
    for part in (*NEEDED, *(() if kind == "StableDiffusionXLPipeline" else READERS)):
        if part in index and index[part] == [None, None]:
            raise DiffcernError(
                f"{name} leaves out its {part} (in {INDEX}), which a prior needs: give the whole pipeline"
            )
    components = {part: value for part, value in index.items() if isinstance(value, list | tuple) and len(value) == 2}
    used = {
        part: _class(name, part, *value)
        for part, value in components.items()
        if part not in UNUSED and any(value)  # an optional one that is left out is [null, null]
    }
    networks = {part: value for part, value in used.items() if issubclass(value, nn.Module)}
    folder = hub.download(name, [str(PurePosixPath(part, file)) for part in ("", *used) for file in hub.TEXT], INDEX)
    places = _places(name, folder, used)
    loaded = _networks(name, folder, {places[part]: value for part, value in networks.items()}, INDEX, allow_pickle)
    left_out: dict[str, Any] = dict.fromkeys(components.keys() - used.keys())
    with reading(folder, "It may be incomplete"):
        parts = {part: loaded[places[part]] for part in networks}
        pipeline = DiffusionPipeline.from_pretrained(str(folder), **parts, **left_out)
    pipeline.set_progress_bar_config(disable=True)
    told = {FREQUENCIES: wanted or usual_frequencies(name)} if FAMILIES[kind] is DiTPrior else {GUIDANCE: guidance}
    with reading(folder, "One of its configuration files may be damaged"):
        prior = FAMILIES[kind].from_pipeline(pipeline, {**index, **told})
    if control is not None:
        place = hub.download(control.name, hub.TEXT)
        controlnet = _networks(control.name, place, {"": ControlNetModel}, "config.json", allow_pickle)[""]
        width = controlnet.config.cross_attention_dim
        if not isinstance(prior, StableDiffusionPrior) or width != prior.denoiser.config.cross_attention_dim:
            raise UsageError(
                f"{control.name} was trained beside another U-Net than that of {name} ({kind}): choose one that fits"
            )
        prior.control(controlnet, control)
    return prior


def _class(name: str, part: str, library: str, class_name: str) -> Any:
    """The class of a pipeline's component."""
    named = isinstance(library, str) and isinstance(class_name, str)
    found = getattr(import_module(library), class_name, None) if named and library in STEMS else None
    if not isinstance(found, type):
        raise DiffcernError(
            f"{name} has {library}.{class_name} as its {part}, which {' and '.join(STEMS)} do not know here: priors "
            "never run a repository's own code"
        )
    return found


def _places(name: str, folder: Path, components: Mapping[str, Any]) -> dict[str, str]:
    """The folder of each component below its repository's: of its name, or "", the repository's own, as in the first
    ones that were published (google/ddpm-cifar10-32).

    Raises DiffcernError for what is in neither.
    """
    places = {part: part if (folder / part).is_dir() else "" for part in components}
    missing = [part for part, value in components.items() if not places[part] and not _at_root(folder, value)]
    if missing:
        raise DiffcernError(
            f"{name} lacks {', '.join(missing)}: {folder} holds only a part of it. Complete that folder; a hub "
            "repository by running this once on a machine with a network and copying its cache"
        )
    return places


def _at_root(folder: Path, component: Any) -> bool:
    """Whether a repository's own folder holds the configuration of a component of diffusers."""
    config = folder / getattr(component, "config_name", "none")  # config.json is a network's, schedulers have others
    if not config.is_file():
        return False
    with reading(config, "It may be damaged"):
        return not issubclass(component, nn.Module) or (
            json.loads(config.read_text()).get("_class_name") == component.__name__
        )


def _networks(
    name: str, folder: Path, classes: Mapping[str, Any], configuration: str, allow_pickle: bool
) -> dict[str, Any]:
    """The networks of a repository, by their folders in it; not all that is published is fetched.

    Raises DiffcernError for one that has no weights that may be read.
    """
    libraries = {place: network.__module__.partition(".")[0] for place, network in classes.items()}
    fetch_weights(name, libraries, configuration, allow_pickle)
    weights = stored_weights(name, folder, libraries, allow_pickle)
    return {place: _network(folder / place, value, weights[place]) for place, value in classes.items()}


def _network(folder: Path, architecture: Any, weights: Stored) -> Any:
    """A network whose tensors are exactly the checkpoint's."""
    diffusers = architecture.__module__.startswith("diffusers.")
    # low_cpu_mem_usage leaves tensors without a value
    options: dict[str, Any] = {"low_cpu_mem_usage": False, **size_options(folder, architecture)} if diffusers else {}
    files = weights.files(folder, "diffusers" if diffusers else "transformers")
    with reading(folder, "It may be truncated, or belong to another config.json"):
        check_described(folder / "config.json", lambda: _described(architecture, folder), files)
        network, info = architecture.from_pretrained(
            folder, use_safetensors=weights.safe, variant=weights.variant, output_loading_info=True, **options
        )
    check_loaded(f"in {folder}", info)
    check_network(f"in {folder}", network, files)
    return network


def _described(architecture: Any, folder: Path) -> Any:
    """The network of a folder's config.json, with no weights of any use."""
    if architecture.__module__.startswith("diffusers."):
        return architecture.from_config(architecture.load_config(folder))
    return architecture(architecture.config_class.from_pretrained(folder))
