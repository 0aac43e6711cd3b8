"""Shifts of photos are ImageNet-C's: the photo is resized and cropped before it is corrupted."""

import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import nn
from torchvision.transforms.v2.functional import to_image

from diffcern import shift
from diffcern.data.corruptions import COMMON, corrupt, imagenet_c_view
from diffcern.predictors import Predictor
from diffcern.resizing import resize_and_crop
from diffcern.rng import generator
from diffcern.run.bench import Bench
from diffcern.run.spec import parse_spec

SEEN = Predictor(nn.Identity(), (), size=224, crop=224 / 256, fit="crop")  # how ImageNet's classifiers look at a photo


def photo(width, height):
    image = Image.fromarray(load_sample_image("china.jpg")).resize((width, height))
    return to_image(image).float() / 255


def test_noise_of_a_photo_reaches_the_predictor_whole():
    """RMSE of the published order, the same noise on the 224 x 224 crop; 0.15 when the photo is corrupted before."""
    image = photo(500, 375)
    clean = imagenet_c_view(image)[None]
    error = SEEN.prepare(shift(image, "gaussian_noise", 5, 0, "a")[None]) - clean
    reference = corrupt(clean[0], "gaussian_noise", 5, generator(0, "shift", "gaussian_noise", "a")) - clean[0]
    assert error.square().mean().sqrt() == pytest.approx(reference.square().mean().sqrt().item(), rel=1e-3)
    assert error.square().mean().sqrt() > 0.25
    before = SEEN.prepare(shift(image, "gaussian_noise", 5, 0, "a", whole=True)[None]) - clean
    assert before.square().mean().sqrt() < 0.2


def test_pixelate_keeps_its_blocks():
    """Of a 1000 x 750 photo a tenth of the effect was left."""
    image = photo(1000, 750)
    clean = imagenet_c_view(image)[None]

    def effect(**options):
        return (SEEN.prepare(shift(image, "pixelate", 5, 0, "a", **options)[None]) - clean).abs().mean()

    assert effect(whole=True) < 0.6 * effect()


@pytest.mark.parametrize("shape", [(32, 32), (28, 28), (64, 64), (224, 224), (96, 128), (223, 500)])
@pytest.mark.parametrize("name", ["gaussian_noise", "fog", "pixelate"])
def test_small_images_and_stored_imagenet_c_are_corrupted_as_they_are(shape, name):
    image = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
    assert imagenet_c_view(image) is image
    expected = corrupt(image, name, 3, generator(0, "shift", name, "a"))
    assert torch.equal(shift(image, name, 3, 0, "a"), expected)


@pytest.mark.parametrize("shape", [(224, 225), (256, 256), (375, 500), (800, 300)])
def test_the_view_is_torchvisions_resize_and_crop(shape):
    image = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(imagenet_c_view(image), resize_and_crop(image[None], 224, 224 / 256, "crop")[0].clamp(0, 1))


@pytest.mark.parametrize("name", COMMON)
def test_every_corruption_of_a_photo_is_of_its_crop(name):
    image = photo(320, 240)
    assert shift(image, name, 1, 0, "a").shape == (3, 224, 224)
    assert shift(image, name, 1, 0, "a", whole=True).shape == image.shape


@pytest.mark.parametrize(("whole", "shape"), [(False, (3, 224, 224)), (True, (3, 240, 320))])
def test_a_specification_can_ask_for_the_whole(tmp_path, whole, shape):
    folder = tmp_path / "images" / "7"
    folder.mkdir(parents=True)
    Image.fromarray(load_sample_image("china.jpg")).resize((320, 240)).save(folder / "a.png")
    spec = parse_spec(
        {
            "name": "photos",
            "data": {"dataset": f"imagefolder:{tmp_path / 'images'}"},
            "models": {"predictor": "embedded:digits"},
            "shifts": {"names": ["fog"], "whole": whole},
            "entries": {"source": {"method": "source"}},
        }
    )
    assert Bench(spec, torch.device("cpu")).image(0, "fog", 5).shape == shape
