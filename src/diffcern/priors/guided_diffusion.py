"""Checkpoints of OpenAI's guided-diffusion (ADM: Dhariwal & Nichol 2021, arXiv:2105.05233) as diffusers' U-Net.

Both libraries build the same network and name its parts differently. What names and shapes tell is inferred: widths,
depth, attention, kind of resampling, how the time step enters, image channels, classes. The rest is in `PUBLISHED`.
Not supported: resampling without weights (`conv_resample=False`), levels of different depth. Knows nothing about
noise schedules; with twice as many output as input channels, the first half is the noise estimate.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffcern.errors import DiffcernError, UsageError

if TYPE_CHECKING:
    from diffusers import UNet2DModel

# What `read_guided_diffusion` has to be told about each published file, from the project's README.
PUBLISHED: dict[str, dict[str, Any]] = {
    "64x64_diffusion.pt": {"image_size": 64, "new_attention_order": True},
    "128x128_diffusion.pt": {"image_size": 128, "heads": 4},
    "256x256_diffusion.pt": {"image_size": 256},
    "256x256_diffusion_uncond.pt": {"image_size": 256},
    "512x512_diffusion.pt": {"image_size": 512},
    **{f"lsun_{name}.pt": {"image_size": 256} for name in ("bedroom", "cat", "horse", "horse_nodropout")},
}

# Layers within a block: diffusers' names -> the checkpoint's. A block that is a single layer has the empty name.
LAYERS = {
    "": "",
    ".norm1": ".in_layers.0",
    ".conv1": ".in_layers.2",
    ".time_emb_proj": ".emb_layers.1",
    ".norm2": ".out_layers.0",
    ".conv2": ".out_layers.3",
    ".conv_shortcut": ".skip_connection",
    ".group_norm": ".norm",
    ".to_q": ".qkv",
    ".to_k": ".qkv",
    ".to_v": ".qkv",
    ".to_out.0": ".proj_out",
}
# Layers outside the levels.
ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "class_embedding": "label_emb",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def read_guided_diffusion(
    path: Path,
    *,
    image_size: int,
    head_channels: int = 64,
    heads: int | None = None,
    new_attention_order: bool = False,
    norm_groups: int = 32,
) -> UNet2DModel:
    """The network in a checkpoint, in fp32 on the CPU, frozen. `PUBLISHED[path.name]`: the arguments of known files.

    image_size: height and width in pixels (recorded; the network takes any multiple of 2^(levels - 1)). head_channels:
    channels of an attention head. heads: a number of heads instead, the same at every level. new_attention_order: the
    rows of a `qkv` weight are all of q, then k, then v, rather than q, k and v of each head in turn. norm_groups: of
    every GroupNorm. A wrong head_channels, heads or order that still divides the channels cannot be noticed here.

    With `heads`, or if the time embedding is not as wide as the first level (512x512), the network is not what its own
    `config` describes: diffusers can save it, but fails to read it back.

    Raises DiffcernError for a file that is not such a checkpoint (nothing in it is executed) and UsageError for
    arguments that do not fit it.
    """
    from diffusers import UNet2DModel  # slow to import
    from diffusers.models.embeddings import TimestepEmbedding, Timesteps

    state = _load(path)
    options = _infer(path, state)
    _check_arguments(path, options, image_size, head_channels, heads, norm_groups)
    with torch.device("meta"):
        model = UNet2DModel(
            sample_size=image_size,
            attention_head_dim=None if heads else head_channels,
            norm_num_groups=norm_groups,
            attn_norm_num_groups=norm_groups,  # else diffusers leaves out the middle attention's norm
            **options,
        )
        width = state["time_embed.0.weight"].shape[1]
        if width != options["block_out_channels"][0]:
            model.time_proj = Timesteps(width, flip_sin_to_cos=True, downscale_freq_shift=0)
            model.time_embedding = TimestepEmbedding(width, options["time_embedding_dim"])
    if heads:
        _set_heads(model, heads)
    sources = _sources(model)
    _check_tensors(path, state, model, sources)
    tensors = {}
    for name, source in sources.items():
        tensors[name] = state[source]
        if ".qkv." in source:
            attention, part, _ = name.rsplit(".", 2)
            groups = 1 if new_attention_order else model.get_submodule(attention).heads
            rows = state[source].unflatten(0, (groups, 3, -1))  # [groups, qkv, C / groups, ...]
            tensors[name] = rows[:, ("to_q", "to_k", "to_v").index(part)].flatten(0, 1)
    model.load_state_dict(tensors, assign=True)
    return model.eval().requires_grad_(False)


def _load(path: Path) -> dict[str, Tensor]:
    """The file's tensors in fp32, those of 1x1 convolutions over sequences (`[out, in, 1]`) as `[out, in]`."""
    if not path.is_file():
        raise DiffcernError(f"there is no file {path}: github.com/openai/guided-diffusion says where to download one.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # When torch refuses a pickle it tells how to load it nonetheless; the reason is what it caught.
        cause = error.__context__ if isinstance(error, pickle.UnpicklingError) and error.__context__ else error
        reason = str(cause).partition("\n")[0].rstrip(". ") or type(cause).__name__
        advice = "It may be truncated, or hold more than tensors, which is refused; fetch it again."
        raise DiffcernError(f"cannot read {path}: {reason}. {advice}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DiffcernError(
            f"{path} is not a guided-diffusion checkpoint: these are a flat dictionary of tensors. Give a "
            "*_diffusion*.pt file."
        )
    return {str(name): (value.squeeze(-1) if value.ndim == 3 else value).float() for name, value in state.items()}


def _infer(path: Path, state: dict[str, Tensor]) -> dict[str, Any]:
    """UNet2DModel's options, from those tensors that tell; raises DiffcernError if one of them is missing."""

    def shape(layer: str) -> torch.Size:
        weight = state.get(f"{layer}.weight")
        if weight is None or weight.ndim < 2:
            raise DiffcernError(
                f"{path} is not a guided-diffusion U-Net: it has no usable {layer}.weight. Classifiers and files of "
                "other projects cannot be read; choose a *_diffusion*.pt file."
            )
        return weight.shape

    shape("output_blocks.0.0.in_layers.2")  # classifiers have none
    count = len({name.split(".")[1] for name in state if name.startswith("output_blocks.")})
    # An output block that upsamples ends its level; the upsampler follows a residual block and, perhaps, attention.
    upsamplers = [re.fullmatch(r"output_blocks\.(\d+)\.[12]\.(conv|in_layers\.0)\.weight", name) for name in state]
    kinds = {int(match[1]): match[2] for match in upsamplers if match} or {count - 1: "conv"}
    resampling = "resnet" if "in_layers.0" in kinds.values() else "conv"
    layers = min(max(1, min(kinds)), count)  # beyond these bounds only in a broken file
    down, up = ("Down", "Up") if resampling == "conv" else ("ResnetDownsample", "ResnetUpsample")
    firsts = [f"input_blocks.{1 + start}" for start in range(0, count, layers + 1)]
    channels = [shape(f"{block}.0.out_layers.3")[0] for block in firsts]
    attends = [f"{block}.1.qkv.weight" in state for block in firsts]
    scale_shift = shape("input_blocks.1.0.emb_layers.1")[0] == 2 * channels[0]
    return {
        "in_channels": shape("input_blocks.0.0")[1],
        "out_channels": shape("out.2")[0],
        "block_out_channels": tuple(channels),
        "layers_per_block": layers,
        "down_block_types": tuple(f"{'AttnDown' if attention else down}Block2D" for attention in attends),
        "up_block_types": tuple(f"{'AttnUp' if attention else up}Block2D" for attention in reversed(attends)),
        "downsample_type": resampling,
        "upsample_type": resampling,
        "resnet_time_scale_shift": "scale_shift" if scale_shift else "default",
        "time_embedding_dim": shape("time_embed.0")[0],
        "flip_sin_to_cos": True,  # cosines first
        "freq_shift": 0,
        "norm_eps": 1e-5,
        "num_class_embeds": shape("label_emb")[0] if "label_emb.weight" in state else None,
    }


def _check_arguments(
    path: Path, options: dict[str, Any], image_size: int, head_channels: int, heads: int | None, norm_groups: int
) -> None:
    """Raises UsageError for sizes that do not divide what they must."""
    channels, types = options["block_out_channels"], options["down_block_types"]
    attended = [width for width, kind in zip(channels, types, strict=True) if kind.startswith("Attn")]
    head = ("heads", heads) if heads else ("head_channels", head_channels)
    checks = [(*head, width, "an attention") for width in (*attended, channels[-1])]
    checks += [("norm_groups", norm_groups, width, "a level") for width in channels]
    for name, divisor, width, place in checks:
        if divisor < 1 or width % divisor:
            raise UsageError(
                f"{name}={divisor} does not divide the {width} channels of {place} in {path}. Give what it was trained "
                "with; published files have head_channels=64 (128x128_diffusion.pt: heads=4) and norm_groups=32."
            )
    factor = 2 ** (len(channels) - 1)
    if image_size < 1 or image_size % factor:
        raise UsageError(
            f"image_size={image_size} is not a multiple of {factor}, as {len(channels)} levels need: {path}"
        )


def _set_heads(model: UNet2DModel, heads: int) -> None:
    """Gives every attention so many heads, whatever its channels; a diffusers config can only fix a head's channels."""
    from diffusers.models.attention_processor import Attention

    for module in model.modules():
        if isinstance(module, Attention):
            module.heads = module.sliceable_head_dim = heads
            module.scale = (module.inner_dim // heads) ** -0.5
    # A model built from this config would silently have other heads; so let it fail to build.
    model.register_to_config(attention_head_dim=f"{heads} heads")


def _sources(model: UNet2DModel) -> dict[str, str]:
    """The names of the model's tensors -> the checkpoint's, which numbers all blocks of a half through."""
    blocks = dict(ENDS)
    per_level = model.config.layers_per_block + 1
    for level, up_type in enumerate(model.config.up_block_types):
        down, up, start = f"down_blocks.{level}", f"up_blocks.{level}", level * per_level
        for i in range(per_level):
            for part, kind in enumerate(("resnets", "attentions")):
                blocks[f"{down}.{kind}.{i}"] = f"input_blocks.{1 + start + i}.{part}"
                blocks[f"{up}.{kind}.{i}"] = f"output_blocks.{start + i}.{part}"
        downsampler = f"input_blocks.{start + per_level}.0"  # a block of its own
        upsampler = f"output_blocks.{start + per_level - 1}.{2 if up_type.startswith('Attn') else 1}"
        blocks |= {f"{down}.downsamplers.0": downsampler, f"{down}.downsamplers.0.conv": f"{downsampler}.op"}
        blocks |= {f"{up}.upsamplers.0": upsampler, f"{up}.upsamplers.0.conv": f"{upsampler}.conv"}
    names = {
        f"{block}{layer}.{kind}": f"{source}{source_layer}.{kind}"
        for block, source in blocks.items()
        for layer, source_layer in LAYERS.items()
        for kind in ("weight", "bias")
    }
    return {name: names[name] for name in model.state_dict()}


def _check_tensors(path: Path, state: dict[str, Tensor], model: UNet2DModel, sources: dict[str, str]) -> None:
    """Raises DiffcernError unless the file's tensors are just those the model needs."""
    shapes = {sources[name]: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    shapes = {name: (3 * shape[0], *shape[1:]) if ".qkv." in name else shape for name, shape in shapes.items()}
    problems = {
        "missing": shapes.keys() - state.keys(),
        "unknown": state.keys() - shapes.keys(),
        "misshapen": {name for name in shapes.keys() & state.keys() if state[name].shape != shapes[name]},
    }
    if any(problems.values()):
        raise DiffcernError(
            f"{path} is not the U-Net that it looks like, with {model.config.layers_per_block} residual blocks at each "
            f"of the widths {model.config.block_out_channels}: "
            + "; ".join(f"{problem} {_some(names)}" for problem, names in problems.items() if names)
            + ". It may be incomplete, or a variant that is not supported."
        )


def _some(names: set[str]) -> str:
    """The first four names, and how many more there are."""
    return ", ".join(sorted(names)[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
