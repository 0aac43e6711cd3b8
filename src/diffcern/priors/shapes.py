"""What the libraries' configuration files in a folder of our own priors hold, and how they agree with `prior.json`.

diffusers and transformers take a key that is missing for its default, and a value of another type as it comes: a
network with another number of heads, or another schedule of noise, has the same tensors and other answers. So all that
a folder of ours says is required here, and whatever ours never change must be as it is in all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from diffcern.configs import Depth, Side, Width, read_config
from diffcern.errors import DiffcernError

Rate = Annotated[float, Field(gt=0, lt=1)]


class Shape(BaseModel):
    """Keys that are required; others are looked at in `FIXED`, or not at all."""

    model_config = ConfigDict(extra="allow")


class DenoiserShape(Shape):
    in_channels: Width
    out_channels: Width
    sample_size: Side


class DiTShape(DenoiserShape):
    num_attention_heads: Width
    attention_head_dim: Width
    num_layers: Depth
    patch_size: Width
    num_embeds_ada_norm: Annotated[int, Field(ge=0)]


class PixArtShape(DenoiserShape):
    num_attention_heads: Width
    attention_head_dim: Width
    num_layers: Depth
    patch_size: Width
    cross_attention_dim: Width


class UNetShape(DenoiserShape):
    block_out_channels: Annotated[tuple[Width, ...], Field(min_length=1, max_length=10)]
    layers_per_block: Depth
    down_block_types: tuple[str, ...]
    up_block_types: tuple[str, ...]
    attention_head_dim: Width
    norm_num_groups: Width
    num_class_embeds: Width


class WordsShape(Shape):
    """Of CLIP's text encoder."""

    vocab_size: Width
    hidden_size: Width
    intermediate_size: Width
    num_hidden_layers: Depth
    num_attention_heads: Width
    max_position_embeddings: Annotated[int, Field(ge=2, le=100_000)]


class FlowShape(Shape):
    """Of FlowMatchEulerDiscreteScheduler: all that says how noise was added."""

    num_train_timesteps: Annotated[int, Field(ge=1, le=100_000)]
    shift: Annotated[float, Field(gt=0, le=100)]


class SchedulerShape(Shape):
    num_train_timesteps: Annotated[int, Field(ge=1, le=100_000)]
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"]
    prediction_type: Literal["epsilon", "sample", "v_prediction"]
    beta_start: Rate = 0.0001
    beta_end: Rate = 0.02
    trained_betas: Annotated[tuple[Rate, ...], Field(min_length=1)] | None = None
    rescale_betas_zero_snr: bool = False


TRANSFORMER = {
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "norm_elementwise_affine": False,
    "norm_num_groups": 32,
    "upcast_attention": False,
}
FIXED: dict[type[Shape], dict[str, Any]] = {
    DiTShape: {**TRANSFORMER, "norm_type": "ada_norm_zero", "norm_eps": 1e-5},
    PixArtShape: {
        **TRANSFORMER,
        "norm_type": "ada_norm_single",
        "norm_eps": 1e-6,
        "attention_type": "default",
        "caption_channels": None,
        "interpolation_scale": None,
        "num_embeds_ada_norm": 1000,
        "use_additional_conditions": False,
    },
    UNetShape: {
        "act_fn": "silu",
        "add_attention": True,
        "attn_norm_num_groups": None,
        "center_input_sample": False,
        "class_embed_type": None,
        "downsample_padding": 1,
        "downsample_type": "conv",
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "mid_block_scale_factor": 1,
        "mid_block_type": "UNetMidBlock2D",
        "norm_eps": 1e-5,
        "num_train_timesteps": None,
        "resnet_time_scale_shift": "default",
        "time_embedding_dim": None,
        "time_embedding_type": "positional",
        "upsample_type": "conv",
    },
    WordsShape: {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
    FlowShape: {},
    SchedulerShape: {},
}


def read_shape(file: Path, kind: type[Shape], advice: str) -> Any:
    """The validated content of a library's configuration file. Raises DiffcernError as `read_config`."""
    shape: Shape = read_config(file, kind, advice)
    content = shape.model_dump()
    for key, value in FIXED[kind].items():
        found = content.get(key, value)
        if found != value or isinstance(found, bool) != isinstance(value, bool):
            raise DiffcernError(
                f"cannot read {file}: {key} is {value!r} in all priors of ours, not {found!r}. {advice}"
            )
    return shape


def check_agreement(folder: Path, wanted: Mapping[str, tuple[Any, Any, str]]) -> None:
    """Raises DiffcernError where prior.json and another file of the folder contradict each other.

    wanted: by what it is about, what prior.json says, what the other file says, and that file's name.
    """
    for what, (said, found, file) in wanted.items():
        if said != found:
            raise DiffcernError(
                f"{folder}: prior.json speaks of {what} {said!r}, and {file} of {found!r}: its parts belong to "
                "different priors, or one was changed"
            )
