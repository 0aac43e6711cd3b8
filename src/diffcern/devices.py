"""Which device to compute on."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from diffcern.errors import UsageError

BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}  # flags of processors that multiply it


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


def processor_flags() -> set[str]:
    """What the processor can do, as Linux tells; empty elsewhere."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.is_file() else []
    return set(next((line.partition(":")[2] for line in lines if line.startswith(("flags", "Features"))), "").split())


def multiplies_bfloat16(device: torch.device) -> bool | None:
    """Natively; where it is emulated it takes several times as long as float32. None where nothing says so."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    flags = processor_flags() if device.type == "cpu" else set()
    return bool(BFLOAT16 & flags) if flags else None


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory in MiB so far: allocated on a CUDA device, else the resident size of this process (NaN on Windows,
    which does not say)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        return float("nan")
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
