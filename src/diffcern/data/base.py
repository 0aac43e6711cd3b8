"""What a data set is, and how a smaller one is chosen from it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils.data._utils.collate import default_collate_fn_map

from diffcern.data.images import UnreadableImage
from diffcern.errors import UsageError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Accepts = tuple[tuple[str, ...], ...] | None
VOID = 255  # in a mask: of no class, not looked at


@dataclass(frozen=True)
class Sample:
    """One image with its name.

    id: unique in its data set, the key of the sample's random numbers. image: `[3, H, W]` float32 in [0, 1].
    target: index into the data set's `class_names`, -1 where unknown. mask: `[H, W]` int64, the class of each pixel,
    255 where void. depth: `[H, W]` float32 in metres, 0 where invalid. Both are None where the data set has none.
    """

    id: str
    image: Tensor
    target: int
    mask: Tensor | None = None
    depth: Tensor | None = None


@dataclass(frozen=True)
class Batch:
    """Samples of one size, as torch's `DataLoader` collates them; unpacks as `images, targets`, as torchvision's do.

    ids: B names. images: `[B, 3, H, W]`; targets: `[B]` int64. masks `[B, H, W]`, depths `[B, H, W]`: None where the
    samples have none.
    """

    ids: list[str]
    images: Tensor
    targets: Tensor
    masks: Tensor | None = None
    depths: Tensor | None = None

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.images, self.targets))

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str) -> Batch:
        """On another device."""
        return self._each(lambda tensor: tensor.to(device))

    def pin_memory(self) -> Batch:
        """As `DataLoader(pin_memory=True)` asks for."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        maps = [None if part is None else change(part) for part in (self.masks, self.depths)]
        return Batch(self.ids, change(self.images), change(self.targets), *maps)


def collate(samples: Sequence[Sample]) -> Batch:
    """One batch of samples; `DataLoader` uses it by itself. Raises UsageError for images of several sizes."""
    shapes = {tuple(sample.image.shape) for sample in samples}
    if len(shapes) > 1:
        raise UsageError(
            f"images of {len(shapes)} sizes do not stack: batch_size=1, or collate_fn=list and a list of images, which "
            "predictors and adapted models take"
        )
    masks, depths = ([getattr(sample, part) for sample in samples] for part in ("mask", "depth"))
    return Batch(
        [sample.id for sample in samples],
        torch.stack([sample.image for sample in samples]),
        torch.tensor([sample.target for sample in samples]),
        _stacked(masks),
        _stacked(depths),
    )


def _stacked(maps: Sequence[Tensor | None]) -> Tensor | None:
    there = [part for part in maps if part is not None]
    if not there:
        return None
    if len(there) < len(maps) or len({part.shape for part in there}) > 1:
        raise UsageError(
            "maps that some samples lack, or of several sizes, do not stack: batch_size=1, or collate_fn=list"
        )
    return torch.stack(there)


# As torch's documentation has it for types of one's own: DataLoader(dataset) works without a collate_fn.
default_collate_fn_map[Sample] = lambda samples, *, collate_fn_map=None: collate(samples)


class Dataset(Protocol):
    """An ordered collection of samples; ids and targets are known without decoding an image.

    class_names is empty where the data set has no classes. class_ids: their WordNet ids ("n01440764"), empty where
    they are not known. accepts: for each class the WordNet ids of the answers that are right, where a class overlaps
    with several (ObjectNet's "Chair" with three chairs of ImageNet); None where a class is one answer.
    `dataset[i]` takes negative indices, raises IndexError past the end and `UnreadableImage` where the image cannot
    be decoded.
    """

    @property
    def name(self) -> str: ...
    @property
    def class_names(self) -> tuple[str, ...]: ...
    @property
    def class_ids(self) -> tuple[str, ...]: ...
    @property
    def accepts(self) -> Accepts: ...
    @property
    def ids(self) -> Sequence[str]: ...
    @property
    def targets(self) -> Sequence[int]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Sample: ...


@dataclass(frozen=True)
class Subset:
    """The rows `indices` of `source`, under its name and classes."""

    source: Dataset
    indices: Sequence[int]

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.source.class_names

    @property
    def class_ids(self) -> tuple[str, ...]:
        return self.source.class_ids

    @property
    def accepts(self) -> Accepts:
        return self.source.accepts

    @property
    def mask_names(self) -> tuple[str, ...]:
        """The classes of the masks; empty where the source has none."""
        return getattr(self.source, "mask_names", ())

    @property
    def renditions(self) -> tuple[str, ...]:
        """The ways in which the source can draw its samples otherwise; empty where there are none."""
        return getattr(self.source, "renditions", ())

    def rendition(self, index: int, name: str, severity: int) -> Sample:
        """The sample drawn otherwise; `UsageError` where the source cannot."""
        if not self.renditions:
            raise UsageError(f"{self.name} has no renditions: choose other shifts.")
        sample: Sample = self.source.rendition(self.indices[index], name, severity)  # type: ignore[attr-defined]
        return sample

    @cached_property
    def ids(self) -> Sequence[str]:
        ids = self.source.ids
        return [ids[i] for i in self.indices]

    @cached_property
    def targets(self) -> Sequence[int]:
        targets = self.source.targets
        return [targets[i] for i in self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.source[self.indices[index]]


def subset(dataset: Dataset, count: int | None, seed: int, skip: int = 0) -> Dataset:
    """A seeded, class-stratified choice of `count` samples, in the data set's order.

    All samples when count is None or no less than there are. Which ones are chosen is a function of (ids,
    targets, seed): the order of rows plays no part. Without targets the choice is uniform.
    skip: chooses among the samples that are not in `subset(dataset, skip, seed)`: options can be chosen on these,
    and figures reported on those.

    Raises `UsageError` for a count below 1 or when none are left.
    """
    if skip:
        if not 0 < skip < len(dataset):
            raise UsageError(f"{dataset.name} has {len(dataset)} samples: skip at least 0 and fewer, not {skip}.")
        left_out = set(stratified(dataset.ids, dataset.targets, skip, seed))
        return subset(Subset(dataset, [row for row in range(len(dataset)) if row not in left_out]), count, seed)
    if count is not None and count < 1:
        raise UsageError(f"a subset needs at least 1 sample, not {count}.")
    if count is None or count >= len(dataset):
        return dataset
    return Subset(dataset, stratified(dataset.ids, dataset.targets, count, seed))


def stratified(ids: Sequence[str], targets: Sequence[int], count: int, seed: int) -> list[int]:
    """Ascending rows of a choice with every class at its share, to within one sample (largest remainders)."""
    by_class: dict[int, list[int]] = {}
    for row, target in enumerate(targets):
        by_class.setdefault(target, []).append(row)

    shares = {target: divmod(count * len(rows), len(ids)) for target, rows in by_class.items()}
    quota = {target: whole for target, (whole, _) in shares.items()}
    # equal remainders are ranked by hash, lest the first classes always get the odd sample
    ranked = sorted(shares, key=lambda target: (-shares[target][1], _rank(seed, "class", str(target))))
    for target in ranked[: count - sum(quota.values())]:
        quota[target] += 1

    chosen: list[int] = []
    for target, rows in by_class.items():
        rows.sort(key=lambda row: _rank(seed, "sample", ids[row]))
        chosen += rows[: quota[target]]
    return sorted(chosen)


def _rank(seed: int, *key: str) -> bytes:
    """A pseudo-random sort key: the same on every machine and with every version of torch or NumPy."""
    return hashlib.blake2b("\x1f".join([str(seed), *key]).encode(), digest_size=16).digest()


class Indexed(Protocol[T_co]):
    """What has ids and is decoded one by one: a `Dataset`, or image-text pairs."""

    @property
    def ids(self) -> Sequence[str]: ...
    def __getitem__(self, index: int) -> T_co: ...


def readable(dataset: Indexed[T], rows: Iterable[int] | None = None) -> Iterator[T | UnreadableImage]:
    """The samples of these rows, or of all in order, or their errors where they cannot be decoded: for callers that
    skip and count."""
    for index in range(len(dataset.ids)) if rows is None else rows:
        try:
            yield dataset[index]
        except UnreadableImage as error:
            yield error
