"""What diffcern finds on this machine: versions, devices, places, extras, and whether a model answers as it should."""

from __future__ import annotations

import os
import platform
import re
import shutil
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from diffcern import __version__

GIB = 2**30
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "sve", "bf16")  # of a processor, those that networks gain by
OF_CONTRIBUTORS = ("dev", "docs")  # extras
SIDE = 512  # of the matrices that say how fast bfloat16 is


@dataclass(frozen=True)
class Library:
    """version: None where it is not installed. wanted: the versions that diffcern works with."""

    name: str
    version: str | None
    wanted: str
    fits: bool


@dataclass(frozen=True)
class Extra:
    """An optional dependency: how `pip install` calls it, and which of its packages are missing."""

    name: str
    installed: bool
    missing: list[str]
    install: str


@dataclass(frozen=True)
class Device:
    """memory_gib: None where it is the machine's. bfloat16: multiplied natively; None where nothing says so."""

    name: str
    what: str
    memory_gib: float | None
    bfloat16: bool | None


@dataclass(frozen=True)
class Place:
    """A folder that files are written into, which need not exist yet, and what is free there."""

    what: str
    path: str
    free_gib: float


@dataclass(frozen=True)
class Check:
    """One question of the self-test, and what was found."""

    question: str
    passed: bool
    found: str


@dataclass(frozen=True)
class Health:
    """bfloat16_speed: how many times as fast a product of bfloat16 matrices is on the CPU as one of float32."""

    diffcern: str
    python: str
    system: str
    processor: list[str]
    cores: int
    threads: int
    memory_gib: float
    bfloat16_speed: float
    libraries: list[Library]
    devices: list[Device]
    places: list[Place]
    extras: list[Extra]
    checks: list[Check]
    seconds: float

    @property
    def well(self) -> bool:
        return all(check.passed for check in self.checks)


def examine(checks: list[Check]) -> Health:
    """This machine; checks: what its self-test found."""
    import torch

    from diffcern.devices import processor_flags
    from diffcern.memory import installed

    start = time.perf_counter()
    requirements = [Requirement(text) for text in _requirements()]
    flags = processor_flags()
    return Health(
        diffcern=__version__,
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()}, {platform.machine()}",
        processor=[flag for flag in FLAGS if flag in flags],
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        memory_gib=round(installed() / GIB, 1),
        bfloat16_speed=_bfloat16_speed(),
        libraries=[_library(each) for each in requirements if not each.marker],
        devices=_devices(),
        places=_places(),
        extras=_extras(requirements),
        checks=checks,
        seconds=round(time.perf_counter() - start, 2),
    )


def _requirements() -> list[str]:
    """As the package's metadata tell; none where it runs uninstalled."""
    try:
        return metadata.requires("diffcern") or []
    except metadata.PackageNotFoundError:
        return []


def _library(wanted: Requirement) -> Library:
    try:
        version = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        return Library(wanted.name, None, str(wanted.specifier), False)
    return Library(wanted.name, version, str(wanted.specifier), wanted.specifier.contains(version, prereleases=True))


def _extras(requirements: list[Requirement]) -> list[Extra]:
    """Those that users install."""
    found: dict[str, list[Library]] = {}
    for each in requirements:
        for name in re.findall(r'extra == "([\w-]+)"', str(each.marker or "")):
            if name not in OF_CONTRIBUTORS:
                found.setdefault(name, []).append(_library(each))
    extras = []
    for name, libraries in found.items():
        missing = [library.name for library in libraries if not library.fits]
        extras.append(Extra(name, not missing, missing, f"python -m pip install 'diffcern[{name}]'"))
    return extras


def _devices() -> list[Device]:
    import torch

    from diffcern.devices import multiplies_bfloat16

    name = f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
    devices = [Device("cpu", name, None, multiplies_bfloat16(torch.device("cpu")))]
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        about = torch.cuda.get_device_properties(index)
        memory, native = round(about.total_memory / GIB, 1), multiplies_bfloat16(torch.device("cuda", index))
        devices.append(Device(f"cuda:{index}", about.name, memory, native))
    if torch.backends.mps.is_available():
        devices.append(Device("mps", "Apple's GPU", None, None))
    return devices


def _bfloat16_speed() -> float:
    """Best of three each, so that a thing that happens beside it does not count."""
    import torch

    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        matrix, times = torch.ones(SIDE, SIDE, dtype=dtype), []
        for _ in range(4):
            start = time.perf_counter()
            torch.nn.functional.linear(matrix, matrix)  # as layers do
            times.append(time.perf_counter() - start)
        seconds[dtype] = min(times[1:])
    return round(seconds[torch.float32] / seconds[torch.bfloat16], 2)


def _places() -> list[Place]:
    import torch
    from huggingface_hub import constants

    from diffcern.files import cache_folder
    from diffcern.run.storage import working_folders

    folders = {
        "models and data of the hub": Path(constants.HF_HUB_CACHE),
        "models of torch": Path(torch.hub.get_dir()),
        "results, unless --out says otherwise": Path.cwd(),
        "parts on the way to a store": working_folders(),
        "what a store's shards hold": cache_folder("shards"),
    }
    return [Place(what, str(path), _free(path)) for what, path in folders.items()]


def _free(path: Path) -> float:
    there = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    return round(shutil.disk_usage(there).free / GIB, 1)
