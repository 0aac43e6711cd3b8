"""Training data with captions: images and what is true of each, read once into memory, and batches of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from rich.markup import escape
from rich.progress import track
from torch import Generator, Tensor
from transformers import PreTrainedTokenizerFast

from diffcern.data import Dataset, Pairs, Scenes, load_dataset, load_pairs
from diffcern.data.scenes import language
from diffcern.errors import DiffcernError, UsageError
from diffcern.fingerprints import digest
from diffcern.train.images import read_pixels
from diffcern.words import token_ids, word_tokenizer


class Captioned(Protocol):
    """Images with captions. `image(i)` is `[3, H, W]` in [0, 1]; `captions(i)` is all that is said of it, which may be
    nothing."""

    @property
    def name(self) -> str: ...
    @property
    def ids(self) -> Sequence[str]: ...
    def image(self, index: int) -> Tensor: ...
    def captions(self, index: int) -> Sequence[str]: ...


@dataclass(frozen=True)
class CaptionedScenes:
    """Embedded scenes with all their true captions."""

    scenes: Scenes

    @property
    def name(self) -> str:
        return f"{self.scenes.name}/{self.scenes.split}"

    @property
    def ids(self) -> Sequence[str]:
        return self.scenes.ids

    def image(self, index: int) -> Tensor:
        return self.scenes[index].image

    def captions(self, index: int) -> Sequence[str]:
        return language.captions(self.scenes.scene(index))


@dataclass(frozen=True)
class CaptionedPairs:
    """Images of matching examples, each with its own caption; captions that describe none are not used."""

    pairs: Pairs

    @property
    def name(self) -> str:
        return self.pairs.name

    @cached_property
    def _rows(self) -> list[tuple[str, Dataset, int, str]]:
        return [
            (f"{entry.id}/{k}", *image, caption)
            for entry in self.pairs.entries
            for k, (image, caption) in enumerate(zip(entry.images, entry.captions, strict=False))
        ]

    @property
    def ids(self) -> Sequence[str]:
        return [id_ for id_, _, _, _ in self._rows]

    def image(self, index: int) -> Tensor:
        _, source, row, _ = self._rows[index]
        return source[row].image

    def captions(self, index: int) -> Sequence[str]:
        return [self._rows[index][3]]


def load_captioned(name: str) -> Captioned:
    """ "embedded:scenes/SPLIT", or image-text pairs as `load_pairs` names them (a Parquet file with the columns image
    and caption).

    Raises `UsageError` for an unknown name or data without captions, `DiffcernError` for data that cannot be used.
    """
    if not name.startswith("embedded:"):
        return CaptionedPairs(load_pairs(name))
    dataset = load_dataset(name)
    if not isinstance(dataset, Scenes):
        raise UsageError(f"{name} has no captions; embedded:scenes/train has, and pairs:FILE.parquet")
    return CaptionedScenes(dataset)


@dataclass(frozen=True)
class CaptionTable:
    """Images `[N, 3, size, size]` uint8 and their captions.

    texts: U different captions. tokens: `[U, L]`, their token numbers. said: `[N, M]` int32, the captions of each
    image by number, padded with -1; counts: `[N]`, how many these are.
    """

    images: Tensor
    texts: tuple[str, ...]
    tokenizer: PreTrainedTokenizerFast
    tokens: Tensor
    said: Tensor
    counts: Tensor

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def digest(self) -> str:
        """Tells apart what is said of the images."""
        return digest([self.texts, self.said.tolist()])

    def batch(self, index: Tensor, device: torch.device) -> Tensor:
        """Images `[B, 3, size, size]` float32 in [0, 1], on the device."""
        return self.images[index].to(device).float() / 255

    def draw(self, index: Tensor, rng: Generator) -> Tensor:
        """One caption of each image at random, `[B]` numbers."""
        chance = torch.rand(len(index), generator=rng, dtype=torch.float64)
        return self.said[index, (chance * self.counts[index]).long()].long()

    def describes(self, index: Tensor, captions: Tensor) -> Tensor:
        """Whether caption j `[C]` is said of image i `[B]`: `[B, C]`."""
        return (self.said[index][:, :, None] == captions).any(1)


def read_captions(data: Captioned, size: int) -> CaptionTable:
    """Decodes and resizes every image of which something is said; the tokenizer is made of the captions' words.

    Raises DiffcernError for no such images or too many pixels.
    """
    numbers: dict[str, int] = {}
    said = []
    for i in track(range(len(data.ids)), escape(f"reading captions of {data.name}"), transient=True):
        said.append([numbers.setdefault(text, len(numbers)) for text in dict.fromkeys(data.captions(i))])
    rows = [i for i, own in enumerate(said) if own]
    if not rows:
        raise DiffcernError(f"{data.name} holds no images with captions: give data that have some")
    images = read_pixels(data.name, (data.image(i) for i in rows), len(rows), size)
    texts = tuple(numbers)
    tokenizer = word_tokenizer(texts)
    counts = torch.tensor([len(said[i]) for i in rows])
    padded = torch.full((len(rows), int(counts.max())), -1, dtype=torch.int32)
    for row, i in enumerate(rows):
        padded[row, : len(said[i])] = torch.tensor(said[i])
    return CaptionTable(images, texts, tokenizer, token_ids(tokenizer, texts), padded, counts)
