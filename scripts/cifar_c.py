#!/usr/bin/env python
"""Corruptions of a data set in the files of CIFAR-10-C, for whatever reads these: RobustBench, or `cifar-c:` here.

    python scripts/cifar_c.py DATASET OUT [--count 1000] [--corruptions fog contrast] [--seed 0]

OUT/CIFAR-10-C/CORRUPTION.npy is `[50000, 32, 32, 3]` uint8, ten thousand rows for each severity from 1 to 5, and
labels.npy the class of each row, by the data set's own order of classes. RobustBench looks for a severity at row 10,000
times its number, however many images there are: with fewer, rows that show nothing follow them, of label -1, and the
evaluation is told `n_examples` of at most as many. On most file systems these rows take no space.

Images are brought to 32 x 32 and then corrupted as `diffcern bench` does, with random numbers by (seed, id).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from diffcern.data import load_dataset, subset
from diffcern.data.corruptions import COMMON, CORRUPTIONS
from diffcern.data.shifts import shift
from diffcern.errors import DiffcernError, UsageError
from diffcern.resizing import interpolate

SIDE, ROWS, SEVERITIES = 32, 10_000, range(1, 6)


def write(dataset: str, out: Path, count: int, corruptions: list[str], seed: int) -> Path:
    """The folder OUT/CIFAR-10-C. Raises UsageError for a data set without labels, and for more images than fit."""
    data = subset(load_dataset(dataset), count, seed)
    if len(data) > ROWS:
        raise UsageError(f"CIFAR-10-C has {ROWS:,} images for each severity, not {len(data):,}: --count {ROWS}")
    if min(data.targets) < 0:
        raise UsageError(f"{dataset} has images without a label: give a data set of labelled images")
    folder = out / "CIFAR-10-C"
    folder.mkdir(parents=True, exist_ok=True)
    labels = np.full((len(SEVERITIES), ROWS), -1)
    labels[:, : len(data)] = data.targets
    np.save(folder / "labels.npy", labels.reshape(-1))
    shape = (len(SEVERITIES) * ROWS, SIDE, SIDE, 3)
    stacks = [np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.uint8, shape) for name in corruptions]
    for row in range(len(data)):
        sample = data[row]
        image = interpolate(sample.image[None], (SIDE, SIDE), "bilinear")[0].clamp(0, 1)
        for name, stack in zip(corruptions, stacks, strict=True):
            for severity in SEVERITIES:
                pixels = (shift(image, name, severity, seed, sample.id) * 255).round().to(torch.uint8)
                stack[(severity - 1) * ROWS + row] = pixels.permute(1, 2, 0).numpy()
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="as diffcern names it: imagefolder:DIR, hf:uoft-cs/cifar10:test, ...")
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=ROWS, help="images, a seeded choice that keeps classes even")
    parser.add_argument("--corruptions", nargs="+", default=list(COMMON), choices=list(CORRUPTIONS), metavar="NAME")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    try:
        print(write(given.dataset, given.out, given.count, given.corruptions, given.seed))
    except DiffcernError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
