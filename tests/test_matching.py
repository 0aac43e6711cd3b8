"""Winoground's scores from a table of errors."""

import torch

from diffcern.tasks.matching import matches


def test_the_published_definitions():
    """Both images must find their caption, both captions their image; the correction takes away an easy image."""
    right = torch.tensor([[0.1, 0.2], [0.4, 0.3]])
    assert matches(right, torch.zeros(2)) == dict.fromkeys(matches(right, torch.zeros(2)), False) | {
        "text": True,
        "image": False,  # image 0 is easier under both captions
        "group": False,
        "image_corrected": False,
        "group_corrected": False,
    }
    corrected = matches(right, torch.tensor([0.15, 0.35]))
    assert corrected["image_corrected"]
    assert corrected["group_corrected"]
    assert not corrected["image"]


def test_ties_are_wrong_and_further_captions_only_distract():
    assert not matches(torch.tensor([[0.1, 0.1], [0.2, 0.1]]), torch.zeros(2))["text"]
    distracted = torch.tensor([[0.3, 0.4, 0.2]])
    assert not matches(distracted, torch.zeros(1))["text"]
    assert matches(distracted, torch.zeros(1))["image"]
