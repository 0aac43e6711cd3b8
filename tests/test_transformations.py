"""Transformations: what they do to pictures, back again, and to the space of pictures."""

import math

import pytest
import torch
from torch.autograd.functional import jacobian

from diffcern.errors import UsageError
from diffcern.transformations import IDENTITY, Transformation

LIGHTS = {
    "gain and offset": Transformation(gain=(2.0, 2.0, 2.0), offset=(-0.3, -0.3, -0.3)),
    "each channel": Transformation(gain=(0.5, 1.5, 3.0), offset=(0.1, 0.0, -0.2)),
    "gamma": Transformation(gamma=1.8),
    "undone blur": Transformation(sharpen=0.2),
    "haze": Transformation(veil=tuple(0.001 * k for k in range(27)), gain=(1.5, 1.2, 2.0), gamma=1.5),
    "all": Transformation(gain=(1.2, 0.8, 1.1), offset=(0.05, 0.0, 0.1), gamma=0.7, sharpen=0.1),
}


def picture(rows=24, columns=32):
    y, x = torch.meshgrid(torch.linspace(-1, 1, rows), torch.linspace(-1, 1, columns), indexing="ij")
    blob = torch.exp(-6 * ((x - 0.2) ** 2 + (2 * y) ** 2))
    return torch.stack([blob, 0.5 * blob, 0.2 + 0.1 * x])[None]


@pytest.mark.parametrize("name", LIGHTS)
def test_the_jacobian_of_light_is_the_closed_form(name):
    images = 0.1 + 0.8 * torch.rand(2, 3, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = LIGHTS[name].log_det(images)
    for image, value in zip(images, found, strict=True):
        whole = jacobian(lambda flat: LIGHTS[name].apply(flat.view(1, 3, 3, 4)).flatten(), image.flatten())
        assert torch.linalg.slogdet(whole).logabsdet.item() == pytest.approx(value.item(), rel=1e-5)


@pytest.mark.parametrize(
    "view", [Transformation(flip=True), Transformation(turn=90.0), Transformation(turn=180.0, flip=True)]
)
def test_numbers_that_only_change_places_stretch_nothing(view):
    square = torch.rand(1, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole = jacobian(lambda flat: view.apply(flat.view(1, 3, 4, 4)).flatten(), square.flatten())
    assert torch.linalg.slogdet(whole).logabsdet.item() == pytest.approx(0.0, abs=1e-4)
    assert view.log_det(square).tolist() == [0.0]
    assert torch.allclose(view.back(view.apply(square)), square, atol=1e-5)


def test_a_quarter_turn_is_counter_clockwise_and_a_flip_mirrors():
    square = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(Transformation(turn=90.0).apply(square), square.rot90(1, (2, 3)), atol=1e-5)
    assert torch.allclose(Transformation(flip=True).apply(square), square.flip(3), atol=1e-5)
    moved = Transformation(shift=(1 / 6, 0.0)).apply(square)
    assert torch.allclose(moved[..., 1:], square[..., :-1], atol=1e-5)  # a pixel to the right
    assert IDENTITY.apply(square) is not None
    assert torch.equal(IDENTITY.apply(square), square)


@pytest.mark.parametrize(
    "view",
    [Transformation(turn=20.0), Transformation(scale=1.2), Transformation(turn=-33.0, scale=0.9, shift=(0.05, -0.1))],
)
def test_maps_are_brought_back_in_pictures_that_are_not_square(view):
    smooth = picture()
    there = view.apply(smooth)
    again = view.back(there)
    inner = (..., slice(8, 16), slice(11, 21))
    assert (there[inner] - smooth[inner]).abs().max() > 0.05
    assert (again[inner] - smooth[inner]).abs().max() < 0.1  # twice interpolated


def test_what_would_be_clipped_is_no_view():
    images = torch.stack([torch.full((3, 4, 4), 0.5), torch.linspace(0, 1, 48).view(3, 4, 4)])
    assert Transformation(gain=(1.9,) * 3).fits(images) == [True, False]
    assert Transformation(offset=(-0.51,) * 3).fits(images) == [True, False]
    assert IDENTITY.fits(3 * images - 1) == [True, True]  # what is outside already, as noise is
    assert Transformation(turn=30.0).fits(images) == [True, True]


def test_a_blur_is_undone_as_far_as_it_left_anything():
    """The k-th cosine is left exp(-(pi sigma k)^2 / 2) of, and comes back; the finest is made 8 times louder."""
    rows, sigma = 32, 0.05
    x = (torch.arange(rows, dtype=torch.float64) + 0.5) / rows
    wave = torch.cos(math.pi * 6 * x).expand(1, 3, rows, rows)
    left = math.exp(-((math.pi * sigma * 6) ** 2) / 2)
    assert torch.allclose(Transformation(sharpen=sigma).apply(left * wave), wave, atol=1e-6)
    finest = torch.cos(math.pi * 31 * x).expand(1, 3, rows, rows)
    assert torch.allclose(Transformation(sharpen=sigma).apply(0.1 * finest), 0.8 * finest, atol=1e-6)
    assert torch.allclose(Transformation(sharpen=sigma).apply(torch.full((1, 3, 9, 7), 0.3)), torch.tensor(0.3))


def test_nearest_leaves_noise_as_loud_as_it_is():
    noise = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    view = Transformation(turn=25.0)
    assert view.apply(noise, "nearest").std().item() == pytest.approx(1.0, rel=0.05)
    assert view.apply(noise).std().item() < 0.8


@pytest.mark.parametrize(
    "options",
    [{"gain": (1.0, 0.0, 1.0)}, {"gamma": -1.0}, {"scale": math.nan}, {"sharpen": -0.1}, {"veil": (0.1, 0.2)}],
)
def test_what_is_no_transformation(options):
    with pytest.raises(UsageError, match=r"are above 0|0 or more|a square grid"):
        Transformation(**options)


def test_boxes_are_brought_back():
    """A mark drawn on the image is found on its view; the box around it, brought back, is where the mark was."""
    image = torch.zeros(1, 3, 60, 90)
    image[..., 20:30, 30:50] = 1
    for view in (
        Transformation(turn=90.0),
        Transformation(flip=True),
        Transformation(scale=1.3),
        Transformation(shift=(0.25, 0.0)),
        Transformation(shift=(0.8, 0.0)),  # out at the right, in at the left
        Transformation(shift=(0.0, -0.2), scale=0.8, flip=True),
    ):
        lit = (view.apply(image)[0, 0] > 0.5).nonzero()
        top, left, bottom, right = *lit.amin(0).tolist(), *(lit.amax(0) + 1).tolist()
        found = view.back_boxes(torch.tensor([[left, top, right, bottom]], dtype=torch.float32), (60, 90))
        assert (found - torch.tensor([[30.0, 20.0, 50.0, 30.0]])).abs().max() < 1.5, view
    beyond = Transformation(scale=0.5).back_boxes(torch.tensor([[0.0, 0.0, 90.0, 60.0]]), (60, 90))
    assert beyond.tolist() == [[0.0, 0.0, 90.0, 60.0]]
