"""What the published runs of Diffusion-TTA (arXiv 2311.16102) move, and how, by what their prior reads."""

from __future__ import annotations

from dataclasses import dataclass

from diffcern.priors import Prior, TextPrior
from diffcern.tasks import Task


@dataclass(frozen=True)
class Published:
    """What the published runs move, and how, by what their prior reads."""

    optimizer: str
    adapt_prior: bool


PUBLISHED = {
    "classes": Published("adam", True),  # ResNet-18 and ConvNeXt with DiT on ImageNet (ViT-B/32: "sgd")
    "prompts": Published("sgd", False),  # CLIP with Stable Diffusion
    "maps": Published("adamw", True),  # SegFormer with a latent diffusion model of ADE20K
}
RATES = {"adam": 1e-5, "sgd": 5e-3, "adamw": 8e-5}  # published beside each optimiser


def reads(prior: Prior, task: Task) -> str:
    """What the prior is told by this task: a key of `PUBLISHED`."""
    if task.kind.dense:
        return "maps"
    return "prompts" if isinstance(prior, TextPrior) else "classes"
