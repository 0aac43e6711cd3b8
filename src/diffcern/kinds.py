"""The kinds of task, a row each: what answers and truths are, what they are called, and what they are measured by.

The ground floor: knows nothing about models and data. What is computed of each is in `tasks/`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from diffcern.metrics import Metric, accuracy, mean_class_accuracy, mean_iou, per_image, pixel_accuracy

TaskName = Literal["classification", "segmentation", "depth"]
Truth = Literal["label", "mask", "depth"]
QUESTION_ANSWERING = "question answering"  # a task in its own right, whose answers are texts
LOGITS = ("logits", "out", "output", "pred", "prediction")  # of transformers, torchvision and common habit


@dataclass(frozen=True)
class Kind:
    """Whether there is an answer at every pixel (`dense`), and whether it is one of named `classes`, not a number.

    output: the shape of a network's answer, in words; keys: what networks call it, the usual first.
    truth: what images come with, an attribute of `data.Sample` if dense; truths: several of it, in words; columns: of
    tables, the usual first; folder: of files, beside that of the images.
    metrics: the first is the one that tables and plots show. statistics: how many an image has, for each class where
    truths are masks. averages: whether metrics are means over images, so that the last statistic is their number.
    """

    name: TaskName
    dense: bool
    classes: bool
    output: str
    keys: tuple[str, ...]
    truth: Truth
    truths: str
    columns: tuple[str, ...]
    folder: str
    metrics: tuple[Metric, ...]
    statistics: int
    averages: bool

    @property
    def axes(self) -> int:
        """Of a network's answer, the batch's and the classes' too."""
        return 2 * self.dense + self.classes + 1


CLASSIFICATION = Kind(
    "classification",
    dense=False,
    classes=True,
    output="logits [B, classes]",
    keys=LOGITS,
    truth="label",
    truths="labels",
    columns=("label", "fine_label", "labels", "target", "class", "cls"),
    folder="",
    metrics=(Metric("accuracy", "accuracy", accuracy),),
    statistics=2,
    averages=True,
)
SEGMENTATION = Kind(
    "segmentation",
    dense=True,
    classes=True,
    output="logits [B, classes, h, w]",
    keys=LOGITS,
    truth="mask",
    truths="masks",
    columns=("mask", "annotation", "segmentation", "segmentation_mask", "semantic_mask", "label"),
    folder="masks",
    metrics=(
        Metric("mean_iou", "mean IoU", mean_iou),
        Metric("mean_class_accuracy", "mean class accuracy", mean_class_accuracy),
        Metric("pixel_accuracy", "pixel accuracy", pixel_accuracy),
    ),
    statistics=3,
    averages=False,
)
DEPTH = Kind(
    "depth",
    dense=True,
    classes=False,
    output="a map [B, h, w]",
    keys=("predicted_depth", "depth", *LOGITS[1:]),
    truth="depth",
    truths="depth maps",
    columns=("depth_mm", "depth"),  # millimetres, as 16-bit images hold them
    folder="depths",
    metrics=(
        Metric("delta_1", "δ < 1.25", per_image(0)),
        Metric("abs_rel", "AbsRel", per_image(1), unit="", better="lower"),
        Metric("rmse", "RMSE", per_image(2), unit="m", better="lower"),
        Metric("ssim", "SSIM", per_image(3), unit=""),
    ),
    statistics=5,
    averages=True,
)


def known(task: str) -> str:
    """The name itself, for pydantic. Raises ValueError for none of `KINDS`."""
    if task not in KINDS:
        raise ValueError(f"one of {', '.join(KINDS)}")
    return task


KINDS: dict[str, Kind] = {kind.name: kind for kind in (CLASSIFICATION, SEGMENTATION, DEPTH)}
