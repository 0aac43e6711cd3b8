"""Training images: a data set decoded once into memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from rich.markup import escape
from rich.progress import track
from torch import Tensor
from torch.nn import functional as F

from diffcern.data import Dataset, Sample
from diffcern.data.maps import check_not_binary, foreign
from diffcern.errors import DiffcernError
from diffcern.kinds import DEPTH, SEGMENTATION, Truth
from diffcern.resizing import Size
from diffcern.rng import generator
from diffcern.tasks.depth import check_depth

MEMORY_LIMIT = 12 * 2**30  # bytes of decoded pixels kept in memory


@dataclass(frozen=True)
class ImageTable:
    """Images `[N, 3, height, width]` uint8 and targets `[N]` (-1 where unknown); truth: masks `[N, H, W]` uint8 or
    depth `[N, H, W]` float16 at their own size, where they were asked for."""

    images: Tensor
    targets: Tensor
    truth: Tensor | None = None

    def batch(self, index: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Images `[B, 3, height, width]` float32 in [0, 1] and targets `[B]`, on the device."""
        return self.images[index].to(device).float() / 255, self.targets[index].to(device)

    def truths(self, index: Tensor, device: torch.device) -> Tensor:
        """Masks `[B, H, W]` int64 or depth `[B, H, W]` float32, on the device."""
        assert self.truth is not None  # it was asked for
        rows = self.truth[index].to(device)
        return rows.float() if rows.is_floating_point() else rows.long()


def read_table(dataset: Dataset, size: Size, truth: Truth = "label") -> ImageTable:
    """Decodes the whole data set, images resized. Raises DiffcernError for data without that truth in some row, truths
    of different sizes, or more pixels than `MEMORY_LIMIT` allows, both counted."""
    targets = torch.tensor([int(target) for target in dataset.targets])
    if truth == "label" and (len(targets) == 0 or targets.min() < 0):
        raise DiffcernError(f"{dataset.name} has images without a label; training needs one for each")
    count = len(dataset)
    truths: Tensor | None = None

    def decoded() -> Iterator[Tensor]:
        nonlocal truths
        for i in range(count):
            sample = dataset[i]
            if truth != "label":
                value = truth_of(sample, truth, len(getattr(dataset, "mask_names", ())))
                if truths is None:
                    kind = torch.float16 if truth == DEPTH.truth else torch.uint8
                    check_memory(f"{count} images with {truth}s", count * (pixels + value.numel() * kind.itemsize))
                    truths = torch.empty(count, *value.shape, dtype=kind)
                if value.shape != truths.shape[1:]:
                    raise DiffcernError(f"{dataset.name} has {truth}s of different sizes; training needs them alike")
                truths[i] = value
            yield sample.image

    height, width = (size, size) if isinstance(size, int) else size
    pixels = 3 * height * width
    images = read_pixels(dataset.name, decoded(), count, size)
    if truths is not None and truth == SEGMENTATION.truth:
        check_not_binary(dataset.name, truths.unique().tolist())
    return ImageTable(images, targets, truths)


def check_memory(what: str, size: int) -> None:
    """Raises DiffcernError for more bytes than `MEMORY_LIMIT`."""
    if size > MEMORY_LIMIT:
        raise DiffcernError(
            f"{what} need {size / 2**30:.1f} GiB of memory, and training keeps {MEMORY_LIMIT >> 30} GiB at most: give "
            "fewer or smaller ones"
        )


def read_pixels(name: str, images: Iterable[Tensor], count: int, size: Size) -> Tensor:
    """`count` images `[3, H, W]` in [0, 1], resized: `[count, 3, height, width]` uint8. Raises DiffcernError for too
    many pixels. name: of the data, for the bar that shows how far it is."""
    height, width = (size, size) if isinstance(size, int) else size
    check_memory(f"{count} images of {height} x {width} pixels", count * 3 * height * width)
    pixels = torch.empty(count, 3, height, width, dtype=torch.uint8)
    for i, image in enumerate(track(images, escape(f"reading {name}"), total=count, transient=True)):
        if image.shape[-2:] != (height, width):
            image = F.interpolate(image[None], (height, width), mode="bilinear", antialias=True)[0]
        pixels[i] = (image * 255).round().to(torch.uint8)
    return pixels


def truth_of(sample: Sample, truth: str, classes: int) -> Tensor:
    """The "mask", whose indices are below `classes` or void, or the "depth". Raises DiffcernError where it is none."""
    value: Tensor | None = getattr(sample, truth)
    if value is None:
        raise DiffcernError(f"{sample.id} has no {truth}; training needs one for each image")
    if truth == DEPTH.truth:
        check_depth(value, sample.id)
        return value
    unknown_classes = foreign(value, classes)
    if len(unknown_classes):
        raise DiffcernError(
            f"the mask of {sample.id} holds {int(unknown_classes[0])}, and there are {classes} classes: "
            "name all of them"
        )
    return value


def pixel_statistics(images: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of at most 10,240 of the images `[N, 3, H, W]` uint8, and the mean and deviation of their channels, `[3]`
    each, in [0, 1]."""
    some = torch.randperm(len(images), generator=generator(seed, "statistics"))[:10_240]
    pixels = images[some].float().div(255)
    return some, pixels.mean((0, 2, 3)), pixels.std((0, 2, 3)).clamp(min=1e-3)
