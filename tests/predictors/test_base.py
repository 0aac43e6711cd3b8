import pytest
import torch
from torch import nn
from torchvision.transforms import v2 as transforms
from torchvision.transforms.v2 import functional as torchvision

from diffcern.errors import UsageError
from diffcern.predictors import Predictor
from diffcern.resizing import fitted_shape, resize_and_crop

from .conftest import tensor


@pytest.mark.parametrize("shape", [(50, 71), (71, 50), (64, 64), (201, 40)])
@pytest.mark.parametrize(("size", "resized"), [(32, 32), (32, 37), (33, 38)])
def test_crop_is_torchvisions_resize_and_center_crop(photo, shape, size, resized):
    image = tensor(photo.resize(shape[::-1]))
    expected = torchvision.center_crop(torchvision.resize(image, [resized], antialias=True), [size, size])
    torch.testing.assert_close(resize_and_crop(image, size, size / resized, "crop"), expected)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_squeeze_is_torchvisions_resize(photo, interpolation):
    image = tensor(photo)
    mode = torchvision.InterpolationMode(interpolation)
    expected = torchvision.resize(image, [24, 48], interpolation=mode, antialias=True).clamp(0, 1)
    torch.testing.assert_close(resize_and_crop(image, (24, 48), interpolation=interpolation), expected)


def test_the_whole_is_squeezed_unless_a_crop_is_asked_for():
    assert fitted_shape((30, 60), (20, 20), "squeeze") == (20, 20)
    assert fitted_shape((30, 60), (20, 20), "crop") == (20, 40)
    assert fitted_shape((30, 60), (20, 10), "crop") == (20, 40)
    left = torch.zeros(1, 3, 30, 60)
    left[..., :10] = 1  # a sixth, which a centre crop does not see
    assert resize_and_crop(left, 20).max() > 0.99
    assert resize_and_crop(left, 20, 0.9).max() == 0


def test_images_of_the_size_are_taken_as_they_are():
    image = torch.rand(1, 3, 32, 32)
    assert Predictor(nn.Identity(), (), size=32, crop=0.875).prepare(image).equal(image)


def test_a_transform_of_ones_own(photo):
    """A network that comes with a transform in place of numbers: both in one module, images as they are."""
    network = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 2))
    transform = nn.Sequential(
        transforms.Resize(20), transforms.CenterCrop(16), transforms.Normalize([0.5] * 3, [0.2] * 3)
    )
    predictor = Predictor(nn.Sequential(transform, network), ("cat", "dog"))
    image = tensor(photo).requires_grad_()
    assert torch.equal(predictor(image), network(transform(image)))
    predictor(image).sum().backward()
    assert image.grad.abs().sum() > 0
    assert predictor.restrict(["dog"])(image).equal(network(transform(image))[:, 1:])


@pytest.mark.parametrize("task", ["segmentation", "depth"])
def test_dense_tasks_see_the_whole_image_and_answer_in_its_size(task):
    class Small(nn.Module):
        def forward(self, images):
            self.seen = tuple(images.shape[-2:])
            small = 4 * images[..., ::4, ::4]
            return small if task == "segmentation" else small[:, 0]

    predictor = Predictor(Small(), tuple("abc"), size=20, crop=0.5, fit="crop", task=task)
    ramp = torch.linspace(0, 1, 60).expand(1, 3, 30, 60)
    output = predictor(ramp)
    assert predictor.model.seen == (20, 40)
    assert output.shape == ((1, 3, 30, 60) if task == "segmentation" else (1, 30, 60))
    assert (output[..., 0] < 0.4).all()
    assert (output[..., -1] > 3.4).all()


def test_ids_are_as_many_as_names():
    with pytest.raises(UsageError, match="1 and 2"):
        Predictor(nn.Identity(), ("a", "b"), class_ids=("n00000001",))
