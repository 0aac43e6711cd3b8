"""What the folders of our own priors share, whatever the network: the kinds of objectives, and the files of diffusers'
formats that lie in them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeAlias

from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.models.attention_processor import Attention, AttnProcessor
from torch import nn

from diffcern.configs import one_of
from diffcern.files import reading
from diffcern.priors.shapes import FlowShape, SchedulerShape, check_agreement, read_shape
from diffcern.weights import DAMAGED, check_shapes, read_weights

TRAINS = "`diffcern train` writes such a file"
Kind = Annotated[str, one_of("eps", "x0", "v", "flow")]
Channels = Annotated[int, one_of(1, 3)]
WEIGHTS = "diffusion_pytorch_model.safetensors"
SCHEDULER = "scheduler/scheduler_config.json"
PREDICTION_TYPES = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}  # ours -> diffusers'
FLOW = "flow"  # x_t = (1 - t) x0 + t eps, and the network estimates eps - x0 (Lipman et al. 2023, arXiv 2210.02747)
OBJECTIVES = (*PREDICTION_TYPES, FLOW)
Scheduler: TypeAlias = DDPMScheduler | FlowMatchEulerDiscreteScheduler


def new_schedule(kind: str, betas: str) -> Scheduler:
    """How noise is added to train a network that estimates `kind`: along straight paths, or by a schedule of betas."""
    if kind == FLOW:
        return FlowMatchEulerDiscreteScheduler()
    return DDPMScheduler(beta_schedule=betas, prediction_type=PREDICTION_TYPES[kind])


def read_schedule(folder: Path, kind: str) -> Scheduler:
    """The scheduler of a prior's folder, whose network estimates `kind`. Raises DiffcernError naming what is wrong."""
    if kind == FLOW:
        read_shape(folder / SCHEDULER, FlowShape, TRAINS)
    else:
        shape = read_shape(folder / SCHEDULER, SchedulerShape, TRAINS)
        check_agreement(folder, {"the kind": (PREDICTION_TYPES[kind], shape.prediction_type, SCHEDULER)})
    read: Any = FlowMatchEulerDiscreteScheduler if kind == FLOW else DDPMScheduler
    with reading(folder / SCHEDULER, TRAINS):
        scheduler: Scheduler = read.from_pretrained(folder / "scheduler")
    return scheduler


def plain_attention(denoiser: nn.Module) -> None:
    """Gives a network of diffusers attention in plain products, in place.

    On CPUs the fused kernel's backward pass is slow in bf16: with 64 tokens the whole network takes 1.7 times as long
    with it. In fp32 it is a tenth faster (`python benchmarks/layouts.py`).
    """
    for module in denoiser.modules():
        if isinstance(module, Attention):
            module.set_processor(AttnProcessor())


def read_denoiser(architecture: Any, folder: Path) -> Any:
    """A network of diffusers from a folder of our own priors, in fp32. Raises DiffcernError as `read_weights`.

    Its own from_pretrained would fill what a file lacks with random numbers.
    """
    with reading(folder / "config.json", DAMAGED):
        shape = architecture.load_config(folder)
        check_shapes(lambda: architecture.from_config(shape), folder / WEIGHTS, "its config.json")
        denoiser = architecture.from_config(shape)
    read_weights(denoiser, folder / WEIGHTS, "its config.json")
    return denoiser.eval()
