"""Images as a batch: one tensor where they have one size, else as they are."""

import torch

from diffcern.run.batch import batch_of

CPU = torch.device("cpu")


def test_equal_sizes_are_stacked():
    images = [torch.rand(3, 4, 5) for _ in range(2)]
    assert torch.equal(batch_of(images, CPU), torch.stack(images))


def test_other_sizes_stay_a_list():
    images = [torch.rand(3, 4, 5), torch.rand(3, 5, 4), torch.rand(3, 4, 5)]
    made = batch_of(images, CPU)
    assert isinstance(made, list)
    assert all(one is other for one, other in zip(made, images, strict=True))


def test_all_go_to_the_device():
    """The meta device has no numbers, and stands for any that is not the CPU."""
    images = [torch.rand(3, 4, 5), torch.rand(3, 5, 4)]
    assert {image.device.type for image in batch_of(images, torch.device("meta"))} == {"meta"}
    assert batch_of(images[:1], torch.device("meta")).device.type == "meta"
