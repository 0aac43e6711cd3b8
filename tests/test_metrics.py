"""Metrics of sums against torchmetrics over the union of images, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from diffcern.kinds import KINDS
from diffcern.metrics import accuracy, mean_class_accuracy, mean_iou, pixel_accuracy

DEPTH = {metric.name: metric for metric in KINDS["depth"].metrics}


def areas(answer: torch.Tensor, truth: torch.Tensor, count: int) -> np.ndarray:
    parts = (answer[answer == truth], answer, truth)
    return torch.cat([torch.bincount(part.flatten(), minlength=count) for part in parts]).double().numpy()


def test_metrics_of_sums_are_those_of_the_union() -> None:
    rng = torch.Generator().manual_seed(0)
    answers, truths = (torch.randint(0, 5, (6, 8, 8), generator=rng) for _ in range(2))
    sums = sum(areas(answer, truth, 5) for answer, truth in zip(answers, truths, strict=True))
    each = np.mean([mean_iou(areas(a, t, 5)) for a, t in zip(answers, truths, strict=True)])
    expected = MulticlassJaccardIndex(5, average="macro")(answers, truths).item()
    assert mean_iou(sums) == pytest.approx(expected, abs=1e-6)
    assert abs(each - expected) > 1e-3  # a mean of images' own would be another number
    assert mean_class_accuracy(sums) == pytest.approx(
        MulticlassAccuracy(5, average="macro")(answers, truths).item(), abs=1e-6
    )
    assert pixel_accuracy(sums) == pytest.approx((answers == truths).double().mean().item())


def test_classes_that_nobody_has_seen_do_not_count() -> None:
    #           agree    answer   truth
    sums = np.array([2.0, 0, 0, 3, 1, 0, 2, 2, 0])  # 2 of 3, 0 of 3, absent
    assert mean_iou(sums) == pytest.approx((2 / 3 + 0) / 2)
    assert mean_class_accuracy(sums) == pytest.approx((2 / 2 + 0 / 2) / 2)
    only_answered = np.array([2.0, 0, 2, 1, 2, 0])
    assert mean_iou(only_answered) == pytest.approx(0.5)  # what is answered in vain costs
    assert mean_class_accuracy(only_answered) == 1.0


def test_metrics_keep_leading_axes_and_are_nan_without_images() -> None:
    for metrics, size in (("classification", 2), ("segmentation", 9), ("depth", 5)):
        for metric in KINDS[metrics].metrics:
            values = metric.of(np.zeros((4, 3, size)))
            assert values.shape == (4, 3)
            assert np.isnan(values).all()
    assert accuracy(np.array([[1.0, 4.0], [3.0, 4.0]])).tolist() == [0.25, 0.75]


def test_depth_is_a_mean_over_images() -> None:
    sums = np.array([[0.9, 0.1, 2.0, 0.8, 1], [0.5, 0.3, 4.0, 0.6, 1]]).sum(0)
    values = {name: float(metric.of(sums)) for name, metric in DEPTH.items()}
    assert values == pytest.approx({"delta_1": 0.7, "abs_rel": 0.2, "rmse": 3.0, "ssim": 0.7})
    assert {name for name, metric in DEPTH.items() if metric.better == "lower"} == {"abs_rel", "rmse"}
    assert DEPTH["rmse"].unit == "m"


def test_tables_show_a_fraction_that_is_better_when_it_is_higher() -> None:
    """The report's main tables and plots are in percent, and colour by the sign of a difference."""
    for first, *_ in (kind.metrics for kind in KINDS.values()):
        assert (first.unit, first.better) == ("%", "higher")
    names = [metric.name for kind in KINDS.values() for metric in kind.metrics]
    assert len(set(names)) == len(names)  # a summary tells metrics apart by name alone
