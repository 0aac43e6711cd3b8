"""What answers are held against: which classes are right, and the masks and depths of a data set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffcern.data import Dataset, Sample, UnreadableImage, load_dataset
from diffcern.data.base import VOID
from diffcern.data.maps import check_not_binary
from diffcern.errors import DiffcernError, UsageError
from diffcern.kinds import CLASSIFICATION, KINDS
from diffcern.labels import imagenet_labels, label_space
from diffcern.run.models import renamed
from diffcern.tasks import Depth, Segmentation, Task

LOOKED = 16  # samples, for masks of black and white


@dataclass(frozen=True)
class Judged:
    """One answer beside the truth, as a record holds it."""

    target: int = -1
    prediction: int = -1
    probabilities: Sequence[float] = ()
    statistics: Sequence[float] = ()


class Truths:
    """What a data set says of its samples, which are named by their index in it, and a task's answers beside it.

    classes: of images, for each class of the data set the names of the answers that are right. room: bytes of masks
    and depths that are kept in memory, those that are asked for first; further ones are read again.
    """

    def __init__(self, dataset: Dataset, task: Task, classes: Sequence[Sequence[str]], room: int) -> None:
        self.dataset = dataset
        self.task = task
        index = {name: k for k, name in enumerate(task.class_names)}
        self._right = [[index[name] for name in names if name in index] for names in classes]
        self._samples: dict[int, Sample] = {}
        self._room = room

    def judge(self, indices: Sequence[int], output: Tensor, probabilities: Tensor | None) -> list[Judged]:
        """One for each row of the output; probabilities: where the task has any of images."""
        if probabilities is None:
            return [
                Judged(statistics=self.task.statistics(output[row], self.sample(index)))
                for row, index in enumerate(indices)
            ]
        judged, table = [], probabilities.cpu()
        for row, index in enumerate(indices):
            answer, target = int(output[row].argmax()), int(self.dataset.targets[index])
            right = self._right[target] if target >= 0 else []
            judged.append(Judged(answer if answer in right else next(iter(right), -1), answer, table[row].tolist()))
        return judged

    def sample(self, index: int) -> Sample:
        """The sample with its mask and depth, without its image.

        Raises UnreadableImage, which names it, for an image that cannot be read or a truth that is none.
        """
        if index not in self._samples:
            sample = self.dataset[index]
            try:
                self.task.check_sample(sample, sample.image)
            except DiffcernError as error:
                raise UnreadableImage(sample.id, str(error)) from error
            kept = replace(sample, image=torch.empty(0))
            size = sum(part.nbytes for part in (kept.mask, kept.depth) if part is not None)
            if size > self._room:
                return kept
            self._samples[index] = kept
            self._room -= size
        return self._samples[index]

    def picture(self, index: int, output: Tensor | None = None) -> bytes | None:
        """An answer, or without one the truth, as PNG in the truth's size; None where there is no truth.

        Relative depth is shown in the truth's scale and shift, as it is measured.
        """
        sample = self.sample(index)
        assert isinstance(self.task, Segmentation | Depth)  # tasks with maps
        truth: Tensor | None = getattr(sample, self.task.kind.truth)
        if truth is None:
            return None
        return self.task.encode(truth if output is None else self.task.answer(output, truth))


def load_images(name: str, task: str, class_names: Sequence[str] | None) -> Dataset:
    """The data set `name`; class_names: of what the task tells apart, pixels or images. Raises as `load_dataset`."""
    kind = KINDS.get(task, CLASSIFICATION)  # the training commands check the name afterwards
    if kind.dense and kind.classes:
        return load_dataset(name, mask_names=class_names)
    return load_dataset(name, class_names=class_names)


def right_answers(
    dataset: Dataset, name: str, task: str, class_map: Mapping[str, str] | None
) -> tuple[tuple[str, ...], ...]:
    """For each class of a data set the predictor's names of the answers that are right; of depth there are none.

    name: the data set's in messages. Raises UsageError as `mask_classes`.
    """
    kind = KINDS[task]
    if not kind.classes:
        return ()
    if kind.dense:
        return tuple((known,) for known in mask_classes(dataset, name, class_map))
    if dataset.accepts is None:
        return tuple((known,) for known in renamed(label_space(dataset.class_names).names, class_map))
    names = dict(zip(*reversed(imagenet_labels()), strict=True))  # by WordNet id
    return tuple(tuple(names[id] for id in ids) for ids in dataset.accepts)


def mask_classes(dataset: Dataset, name: str, class_map: Mapping[str, str] | None) -> tuple[str, ...]:
    """What the predictor calls the classes of a data set's masks, in order; name: the data set's in messages.

    Raises UsageError where the data set does not say what they are, or there are too many for an image of indices.
    """
    names: tuple[str, ...] = getattr(dataset, "mask_names", ())
    if not names:
        raise UsageError(f'{name} does not name the classes of its masks: add class_names = ["sky", ...] to [data]')
    if len(names) > VOID:
        raise UsageError(f"{name} has {len(names)} classes of pixels: at most {VOID} fit into a mask")
    return renamed(names, class_map)


def check_truth(dataset: Dataset, name: str, task: str, order: Iterable[int]) -> None:
    """Raises UsageError where a data set has no truth for a task with an answer at every pixel.

    The first samples of the order that can be read are looked at.
    """
    kind, values, looked = KINDS[task], set[int](), 0
    for index in order:
        try:
            sample = dataset[index]
        except UnreadableImage:
            continue
        if getattr(sample, kind.truth) is None:
            columns = ", ".join(kind.columns)
            raise UsageError(
                f"{name} has no {kind.truths}, which a bench of {task} needs: name a data set that has them, such as "
                f"embedded:scenes or a parquet file with a column {columns}"
            )
        if sample.mask is None:  # depth
            return
        values |= set(sample.mask.unique().tolist())
        looked += 1
        if values - {0, VOID}:
            return
        if looked == LOOKED:
            break
    check_not_binary(name, values)
