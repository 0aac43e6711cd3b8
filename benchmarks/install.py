"""What each library that diffcern asks for costs: MB on disk, with all that nothing else brings, and seconds of import.

    python benchmarks/install.py

In this environment: the files of a library, then of all that would go with it, and the best of three imports in a
process of their own.
"""

from __future__ import annotations

import subprocess
import sys
import time
from functools import cache
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

MODULES = {
    **{"opencv-python-headless": "cv2", "scikit-learn": "sklearn", "scikit-image": "skimage", "pillow": "PIL"},
    **{"huggingface-hub": "huggingface_hub", "protobuf": "google.protobuf", "pyyaml": "yaml", "tomli-w": "tomli_w"},
    **{"pillow-heif": "pillow_heif"},
}


@cache
def needed(name: str) -> frozenset[str]:
    """What a package asks for itself, without its extras."""
    try:
        requirements = [Requirement(text) for text in metadata.requires(name) or []]
    except metadata.PackageNotFoundError:
        return frozenset()
    return frozenset(
        canonicalize_name(each.name) for each in requirements if not each.marker or each.marker.evaluate({"extra": ""})
    )


def brought(names: set[str]) -> set[str]:
    """These and all that they bring."""
    found: set[str] = set()
    while names:
        found |= names
        names = {other for name in names for other in needed(name)} - found
    return found


@cache
def megabytes(name: str) -> float:
    try:
        files = metadata.files(name) or []
    except metadata.PackageNotFoundError:
        return 0.0
    sizes = [path.stat().st_size for file in files if (path := file.locate()).is_file()]
    return sum(sizes) / 1e6


def import_seconds(module: str) -> float:
    best = float("inf")
    for _ in range(3):
        lines = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
        run = subprocess.run([sys.executable, "-c", lines], check=True, capture_output=True, text=True)
        best = min(best, float(run.stdout.split()[-1]))
    return best


def main() -> None:
    begin = time.perf_counter()
    wanted = {canonicalize_name(name) for name in needed("diffcern")}
    extras = sys.argv[1:]  # further names, of extras
    everything = brought(set(wanted))
    total = sum(map(megabytes, everything))
    print(f"{len(everything)} packages, {total:,.0f} MB in all")
    print("| library | MB | MB with what only it brings | s to import |\n|---|---:|---:|---:|")
    rows = []
    for name in [*wanted, *extras]:
        alone = brought({name}) - brought(wanted - {name})
        module = MODULES.get(name, name.replace("-", "_"))
        rows.append((sum(map(megabytes, alone)), name, megabytes(name), import_seconds(module)))
    for with_others, name, own, seconds in sorted(rows, reverse=True):
        print(f"| {name} | {own:,.0f} | {with_others:,.0f} | {seconds:.2f} |")
    print(f"\n{time.perf_counter() - begin:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
