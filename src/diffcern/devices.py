"""Which device to compute on."""

from __future__ import annotations

import sys

import torch

from diffcern.errors import UsageError


def device_named(name: str) -> torch.device:
    """The device for "auto" (CUDA, then MPS, then CPU) or for "cpu", "cuda[:N]", "mps".

    Raises UsageError for another name or a device that this machine lacks.
    """
    available = [
        "cpu",
        *(["cuda"] if torch.cuda.is_available() else []),
        *(["mps"] if torch.backends.mps.is_available() else []),
    ]
    if name == "auto":
        return torch.device(next((d for d in ("cuda", "mps") if d in available), "cpu"))
    if name.partition(":")[0] not in available:
        raise UsageError(f"device {name!r} is not to be had here; available: auto, {', '.join(available)}")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"{name!r} is no device: {error}") from error


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory in MiB so far: allocated on a CUDA device, else the resident size of this process (NaN on Windows,
    which does not say)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        return float("nan")
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
