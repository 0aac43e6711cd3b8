"""Predictor and prior look at the same part of a photo, each in its own resolution, whatever stands beside it."""

import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import nn
from torchvision.transforms.v2.functional import to_image

from diffcern.feature_guides import MarginalEntropy
from diffcern.methods import build_method, memo
from diffcern.predictors import Predictor
from diffcern.priors.native import NativeConfig, native_prior
from diffcern.resizing import centre_view, interpolate
from diffcern.tasks import Classification
from diffcern.types import Inputs

NAMES = tuple("0123")
SMALL = {"steps": 1, "draws": 2, "optimizer": "sgd", "learning_rate": 0.1}
ASKING = {  # the methods that show images to a prior, as cheap as they come
    "diffusion-tta": SMALL,
    "dusa": {"top_k": 2, "random_k": 1},
    "diffpure": {"start": 9, "steps": 1},
    "dda": {"start": 9, "steps": 1},
    "gda": {"start": 9, "steps": 1, "views": 2},
}


@pytest.fixture
def untrained():
    torch.manual_seed(0)
    config = NativeConfig("dit", "x0", 32, 3, NAMES)
    return native_prior(config, width=32, depth=1, heads=2, patch=8)


@pytest.fixture
def cropping():
    """A classifier that resizes to 32 and keeps 28, as ImageNet's keep 224 of 256."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Predictor(nn.Sequential(*network, nn.Linear(4, 4)), NAMES, size=28, crop=28 / 32)


@pytest.fixture
def seen(monkeypatch, untrained):
    """The images that the prior encodes, in its own size and in [0, 1]."""
    shown = []

    def encode(self, images):
        shown.append((interpolate(images, (32, 32), "bilinear")).detach())
        return original(self, images)

    original = type(untrained).encode
    monkeypatch.setattr(type(untrained), "encode", encode)
    return shown


@pytest.fixture
def wide():
    """500 x 375 pixels of a photo that comes with scikit-learn."""
    photo = Image.fromarray(load_sample_image("china.jpg")).resize((500, 375))
    return to_image(photo).float() / 255


@pytest.mark.parametrize(
    ("shape", "ratio", "share", "expected"),
    [
        ((375, 500), 1.0, 1.0, (375, 375)),
        ((375, 500), 1.0, 224 / 256, (328, 328)),
        ((500, 375), 1.0, 1.0, (375, 375)),
        ((375, 500), None, 0.5, (188, 250)),
        ((300, 300), 2.0, 1.0, (150, 300)),
        ((5, 500), 1.0, 0.01, (1, 1)),
    ],
)
def test_the_centre(shape, ratio, share, expected):
    rows, columns = torch.meshgrid(torch.arange(shape[0]), torch.arange(shape[1]), indexing="ij")
    view = centre_view(torch.stack([rows, columns]), ratio, share)
    assert tuple(view.shape[1:]) == expected
    for axis, side in enumerate(shape):  # as much is missing on either side, to within a pixel
        assert abs(view[axis].min() - (side - 1 - view[axis].max())) <= 1


@pytest.mark.parametrize("fit", ["crop", "squeeze"])
def test_a_view_holds_what_the_predictor_sees(wide, cropping, fit):
    """Cropped first or resized first: the same picture but for the rounding of the border."""
    predictor = Predictor(nn.Identity(), NAMES, size=96, crop=0.75, fit=fit)
    same = predictor.of_view(predictor.view(wide[None]))
    assert (same - predictor.resize(wide[None])).abs().mean() < 0.01
    assert predictor.view(torch.rand(1, 3, 96, 96)).shape == (1, 3, 96, 96)  # it is cropped already


@pytest.mark.parametrize("method", ASKING)
def test_the_prior_sees_the_predictors_crop(method, untrained, cropping, seen, wide):
    """Mean difference of 16/255 on this photo when the whole of it is squeezed instead."""
    task = Classification(NAMES, NAMES)
    built = build_method(method, cropping, untrained, task, ASKING[method])
    built.step(built.init(), Inputs(wide[None], ["a"]), 0)
    crop = cropping.resize(wide[None])  # the predictor's own crop, 28 pixels
    assert (interpolate(seen[0], (28, 28), "bilinear") - crop).abs().mean() < 4 / 255
    squeezed = interpolate(wide[None], (28, 28), "bilinear")
    assert (squeezed - crop).abs().mean() > 12 / 255


@pytest.mark.parametrize("view", ["centre", "whole"])
def test_without_a_predictor_it_sees_the_centre(view, untrained, seen, wide):
    options = {"draws": 2, **({} if view == "centre" else {"view": view})}
    built = build_method("diffusion-classifier", None, untrained, Classification(NAMES, NAMES), options)
    built.step(None, Inputs(wide[None], ["a"]), 0)
    expected = wide[None, :, :, 62:437] if view == "centre" else wide[None]
    torch.testing.assert_close(seen[0], interpolate(expected, (32, 32), "bilinear"))


@pytest.mark.parametrize("method", [*ASKING, "source", "diffusion-classifier"])
def test_the_company_changes_nothing(method, untrained, cropping, wide):
    """Of images of different sizes in one batch each is seen as when it is alone."""
    options = {**ASKING, "diffusion-classifier": {"draws": 2}}.get(method, {})
    if method == "diffusion-tta":  # a step on several images is one on their mean
        options = {**options, "learning_rate": 0.0}
    built = build_method(method, cropping, untrained, Classification(NAMES, NAMES), options)
    tall = torch.rand(3, 64, 40, generator=torch.Generator().manual_seed(0))
    alone, _ = built.step(built.init(), Inputs(wide[None], ["a"]), 0)
    beside, _ = built.step(built.init(), Inputs([tall, wide], ["b", "a"]), 0)
    torch.testing.assert_close(beside.output[1], alone.output[0])
    assert beside.costs[1] == alone.costs[0]
    if beside.trace and beside.trace[1]:
        assert beside.trace[1] == pytest.approx(alone.trace[0])


def test_memo_augments_what_the_predictor_sees(cropping, wide, monkeypatch):
    shapes = []

    def augmix(image, views, *rest):
        shapes.append(tuple(image.shape))
        return image.expand(views, 3, 28, 28)

    monkeypatch.setattr(memo, "augmix", augmix)
    built = build_method("memo", cropping, None, None, {"views": 2, "crops": "none"})
    built.step(built.init(), Inputs([wide, wide[:, :64]], ["a", "b"]), 0)
    assert shapes == [(3, 28, 28)] * 2


def test_a_purified_view_is_not_cropped_again(untrained, cropping, wide, monkeypatch):
    """The purified picture of the predictor's crop reaches it whole."""
    built = build_method("diffpure", cropping, untrained, Classification(NAMES, NAMES), ASKING["diffpure"])
    marked = torch.zeros(1, 3, 32, 32)
    marked[..., :2, :] = 1.0  # a border that a second crop of 28 from 32 would cut off
    monkeypatch.setattr(built.purifier, "_purify", lambda images, ids, seed, paths: marked)
    looked = []
    monkeypatch.setattr(
        cropping.__class__, "prepare", lambda self, images: looked.append(self.resize(images)) or looked[-1]
    )
    built.step(None, Inputs(wide[None], ["a"]), 0)
    assert looked[-1].shape == (1, 3, 28, 28)
    assert looked[-1][..., 0, :].min() > 0.9


def test_a_guide_looks_at_the_whole_estimate(cropping):
    """So does the entropy of GDA, whose estimate is of the predictor's crop."""
    looked = []
    cropping.model.register_forward_pre_hook(lambda module, given: looked.append(given[0]))
    estimate = torch.full((1, 3, 32, 32), -1.0)
    MarginalEntropy(cropping, views=1)(estimate, estimate)
    assert looked[0].shape == (1, 3, 28, 28)
    assert cropping.of_view(estimate).shape == (1, 3, 28, 28)


@pytest.mark.parametrize("task", ["segmentation", "depth"])
def test_dense_tasks_keep_every_pixel(task, wide):
    predictor = Predictor(
        nn.Identity(), NAMES if task == "segmentation" else (), size=28, crop=0.5, fit="crop", task=task
    )
    assert predictor.view(wide[None]) is not None
    assert predictor.view(wide[None]).shape == wide[None].shape
