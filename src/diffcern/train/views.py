"""What a fine-tuning shows of an image: itself in the predictor's size, moved a little, or as timm augments it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Generator, Tensor
from torchvision.transforms.v2.functional import to_pil_image

from diffcern.data import Dataset
from diffcern.predictors.base import Predictor
from diffcern.resizing import interpolate, pair
from diffcern.rng import generator
from diffcern.train.augmentations import augment, augmentation_names, mirrored

Look = Callable[[Tensor, Generator], Tensor]  # [3, H, W] in [0, 1] -> [3, h, w]; a DataLoader's workers can read it


@dataclass(frozen=True)
class Views(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """A view of every image, and its target: a function of the key and the image's id, whoever asks and when."""

    dataset: Dataset
    view: Look
    key: tuple[str | int, ...] = ()
    seed: int = 0

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        sample = self.dataset[index]
        return self.view(sample.image, generator(self.seed, *self.key, sample.id)), sample.target


@dataclass(frozen=True)
class MapViews(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """Every image as it is, since the predictor resizes it itself, and its mask or depth; as `Views` otherwise.

    flip: whether half of them are mirrored, image and map together.
    """

    dataset: Dataset
    flip: bool = False
    key: tuple[str | int, ...] = ()
    seed: int = 0

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        sample = self.dataset[index]
        truth = sample.depth if sample.mask is None else sample.mask
        assert truth is not None  # what is fine-tuned on comes with it
        rng = generator(self.seed, *self.key, sample.id)
        images, truths = mirrored(sample.image[None], truth[None], self.flip, rng)
        return images[0], truths[0]


def fitted(predictor: Predictor, shape: Sequence[int], augmentation: str = "none") -> Look:
    """The whole image in the predictor's size, with augmentations of `augmentations.py`; shape: where it takes any.

    Whole, because it is a view already, as are the purified targets (see `Predictor.of_view`).
    """
    size = pair(predictor.size or (shape[-2], shape[-1]))
    resize = partial(interpolate, shape=size, interpolation=predictor.interpolation)
    return partial(_fit, resize=resize, names=augmentation_names(augmentation))


def _fit(image: Tensor, rng: Generator, resize: Callable[[Tensor], Tensor], names: tuple[str, ...]) -> Tensor:
    return augment(resize(image[None]), names, rng)[0]


def randomised(predictor: Predictor, shape: Sequence[int], policy: str | None, erasing: float) -> Look:
    """timm's training view: a random crop, a mirror, RandAugment by its name there, and erasing with that probability.

    What is erased becomes noise of variance 1 around 0 after the predictor's normalisation, as published.
    """
    from timm.data import create_transform  # slow to import, and only needed here

    size = predictor.size or (shape[-2], shape[-1])
    mean, std = (value.flatten().expand(3).tolist() for value in (predictor.mean, predictor.std))
    transform = create_transform(
        (3, size, size) if isinstance(size, int) else (3, *size),
        is_training=True,
        auto_augment=policy,
        interpolation=predictor.interpolation,
        mean=mean,
        std=std,
        re_prob=erasing,
        re_mode="pixel",
    )
    return partial(_randomise, transform=transform, mean=mean, std=std)


def _randomise(
    image: Tensor, rng: Generator, transform: Callable[..., Tensor], mean: list[float], std: list[float]
) -> Tensor:
    with seeded(rng):
        normalised = transform(to_pil_image(image))
    return normalised * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]


@contextmanager
def seeded(rng: Generator) -> Iterator[None]:
    """Seeds the global generators of Python, NumPy and torch's CPU, which timm draws from, and puts them back."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    seed = int(torch.randint(2**31, (), generator=rng))
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        torch.set_rng_state(before[2])
