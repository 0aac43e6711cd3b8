"""The guidance that a distilled network is told: it answers at once as another did that was asked twice.

Latent consistency models (Luo et al. 2023, arXiv 2310.04378) and FLUX.1-dev were distilled from classifier-free
guidance (Ho & Salimans 2022, arXiv 2207.12598) of many strengths, and hear which. Unsaid, it is what diffusers'
pipeline of the family says; "NAME+guidance:3.5" says otherwise. In diffusers' terms: 1 is no guidance.
"""

from __future__ import annotations

import inspect
import math
from typing import Any

from diffcern.errors import UsageError

GUIDANCE = "guidance"  # what it is called in names, and beside the keys of model_index.json


def told_guidance(name: str) -> tuple[str, float | None]:
    """The name of a repository or folder without what it says of guidance, and that, or None.

    Raises UsageError for what is no number from 1 up.
    """
    base, suffix, wanted = name.partition(f"+{GUIDANCE}:")
    if not suffix:
        return base, None
    try:
        strength = float(wanted)
    except ValueError:
        strength = math.nan
    if not 1 <= strength < math.inf:
        raise UsageError(f"+{GUIDANCE}:{wanted} must be a number from 1, which is no guidance, up: +{GUIDANCE}:3.5")
    return base, strength


def usual_guidance(pipeline: Any) -> float:
    """What a pipeline of diffusers tells its network where nobody says."""
    default: float = inspect.signature(type(pipeline).__call__).parameters["guidance_scale"].default
    return default


def hears_guidance(denoiser: Any) -> bool:
    """Whether a network of diffusers is told the strength of guidance."""
    return bool(denoiser.config.get("time_cond_proj_dim") or denoiser.config.get("guidance_embeds"))
